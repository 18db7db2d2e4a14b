"""Which database is meant: the URL of a server, the path of a DuckDB or SQLite file, or a variable that holds a URL.

A password is in the environment or in a file of the driver's own. One in an argument is refused: it would be in the
shell's history, in the list of processes, and in logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from dpdau_assets.core.errors import BadInput, BadSetting
from resources.databases.snapshots import Query, Snapshot

_VARIABLE = "env:"
_SQLITE, _DUCKDB = b"SQLite format 3\0", b"DUCK"
_HEAD_BYTES = 16
_FILES = ("sqlite", "duckdb")
_SECRETS = ("password", "token", "secret", "private_key", "access_key")


@dataclass(frozen=True)
class Address:
    """A database. `scheme` is that of a URL, or sqlite or duckdb for a file; `shown` is free of secrets."""

    scheme: str
    shown: str
    target: str = field(repr=False)
    """The URL, or the path of a file."""

    def __str__(self) -> str:
        return self.shown


def address_written(text: str) -> Address:
    """A path, a URL, or `env:NAME` for a variable that holds one.

    Raises BadSetting for a password in what is written, and for a variable that is not set; BadInput for a file that
    is none of a database.
    """
    if text.startswith(_VARIABLE):
        from resources.settings_env import variable

        name = text.removeprefix(_VARIABLE)
        if (value := variable(name)) is None:
            raise BadSetting(f"{text}: {name} is not set.", "Set it to the URL of the database.")
        return _address(value, text)
    if "://" in text and _has_secret(text):
        raise BadSetting(
            "The database's URL holds a password: it would be seen in the list of processes and in logs.",
            "Leave it out. PostgreSQL's comes from PGPASSWORD or a pgpass file; any URL may be in a variable, as "
            "--from env:WAREHOUSE_URL.",
        )
    return _address(text, _without_options(text) if "://" in text else text)


@contextmanager
def opened_snapshot(address: Address, query: Query) -> Iterator[Snapshot]:
    """One read-only snapshot, until the context ends.

    Raises BadInput for a database that does not answer, and BadSetting where the driver is not installed.
    """
    if address.scheme == "sqlite":
        from resources.databases.sqlite import sqlite_snapshot as opener
    elif address.scheme == "duckdb":
        from resources.databases.duckdb_file import duckdb_snapshot as opener
    else:
        _require_driver(address.scheme)
        from resources.databases.adbc import adbc_snapshot as opener
    with opener(address, query) as snapshot:
        yield snapshot


def _address(text: str, shown: str) -> Address:
    if "://" not in text:
        return Address(_kind_of_file(Path(text), shown), shown, text)
    url = urlsplit(text)
    scheme = "postgresql" if url.scheme == "postgres" else url.scheme
    if scheme in _FILES:
        path = unquote(url.path)
        return Address(scheme, shown, path if url.path.startswith("//") else path.removeprefix("/"))
    return Address(scheme, shown, text)


def _has_secret(text: str) -> bool:
    url = urlsplit(text)
    options = [name.casefold() for name, _ in parse_qsl(url.query, keep_blank_values=True)]
    return url.password is not None or any(part in name for name in options for part in _SECRETS)


def _without_options(text: str) -> str:
    return text.partition("?")[0]


def _kind_of_file(path: Path, shown: str) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise BadInput(f"{shown} cannot be opened: {error.strerror}.", "Name a file that is there.") from None
    if head.startswith(_SQLITE):
        return "sqlite"
    if head[8:12] == _DUCKDB:
        return "duckdb"
    raise BadInput(
        f"{shown} is neither a DuckDB nor an SQLite file.",
        "Name one, or a URL as postgresql://reader@host/warehouse; files of events are read without --sql.",
    )


def _require_driver(scheme: str) -> None:
    module = f"adbc_driver_{scheme}"
    if not scheme.isidentifier() or find_spec("adbc_driver_manager") is None or find_spec(module) is None:
        own = "" if scheme == "postgresql" else f" adbc-driver-{scheme}"
        raise BadSetting(
            f"{scheme}:// needs a driver that is not installed.",
            f"If there is one: pip install '.[sql]'{own}, in a clone.",
        )
