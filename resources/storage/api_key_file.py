"""The file of API keys: a few rows of JSON, of which each holds a key's hash and never the key.

It is read for every request, and so only looked at unless it changed. A change is made under a lock beside the file,
from what the file holds then, and takes its place in one step.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from dpdau_assets.core.api_keys import NAME, SCOPES, ApiKey, Scope, hash_of, in_order, with_new, with_revoked
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.settings import Settings
from resources.storage.durable import write_durably
from resources.storage.file_lock import FileLock

VERSION = 1
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FIELDS = ("id", "name", "sha256", "scopes", "created_on", "expires_on", "revoked_on")
_ID, _HASH = re.compile(r"[0-9a-f]{8}"), re.compile(r"[0-9a-f]{64}")

_Stamp = tuple[int, ...]
_T = TypeVar("_T")


def api_key_file(settings: Settings) -> ApiKeyFile:
    """The file that these settings name: API_KEYS_FILE, or else `api_keys.json` in DATA_DIR."""
    return ApiKeyFile(settings.api_keys_file or settings.data_dir / "api_keys.json")


class ApiKeyFile:
    """Keys in the order in which they were made; no file is no keys. Its owner alone may read it.

    Every method raises BadSetting, which says what to do, for a file that is damaged, that cannot be read, or that
    others than its owner may read or write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path = path.resolve()  # a link to it is not replaced by a file
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._known: tuple[_Stamp, tuple[ApiKey, ...]] | None = None  # one value, so that threads see both or neither

    def read(self) -> tuple[ApiKey, ...]:
        """All keys as the file has them now; while it is unchanged, that takes one look at its status."""
        known = self._known
        with self._readable():
            if known is not None and _stamp(self._path.stat()) == known[0]:
                return known[1]
            self._known = known = self._parsed()
            return known[1]
        self._known = None
        return ()

    def add(
        self, name: str, scopes: frozenset[Scope], today: date, expires_on: date | None = None
    ) -> tuple[ApiKey, str]:
        """Draw a key, and note it durably: what is kept, and the key itself, which is kept nowhere.

        It is 32 random bytes in base64url, 43 characters. Raises what `with_new` raises, and then nothing changed.
        """
        text = secrets.token_urlsafe(32)
        return self._changed(lambda keys: _added(keys, text, name, scopes, today, expires_on)), text

    def revoke(self, name_or_id: str, today: date) -> tuple[str, ...]:
        """Revoke the keys of this name, or the one with this id, durably: the ids of those that were not before.

        Raises BadInput where no key has the name or the id.
        """
        return self._changed(lambda keys: with_revoked(keys, name_or_id, today))

    def _changed(self, change: Callable[[tuple[ApiKey, ...]], tuple[tuple[ApiKey, ...], _T]]) -> _T:
        """Put what the change makes of the keys in their place; what else it returns is handed on."""
        with self._lock.held():
            before = self.read()
            after, told = change(before)
            if after != before:
                document = {"version": VERSION, "keys": [_row(key) for key in after]}
                written = json.dumps(document, indent=1).encode("ascii") + b"\n"
                write_durably(self._path, lambda file: file.writelines([written]))
            return told

    def _parsed(self) -> tuple[_Stamp, tuple[ApiKey, ...]]:
        """The file's keys, and the status of just the file that they were read from."""
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & _OTHERS:
                raise BadSetting(
                    f"{self._path} is open to others than its owner: its mode is {stat.S_IMODE(status.st_mode):04o}.",
                    f"Take their rights away: `chmod 600 {self._path}`.",
                )
            content = file.read()
        try:
            return _stamp(status), _keys_in(json.loads(content))
        except (ValueError, TypeError, KeyError, RecursionError):  # which show what the file holds
            raise BadSetting(
                f"{self._path} is damaged: it does not hold API keys as dpdau writes them.",
                "Put it back from a copy, or move it away and make new keys by `dpdau api-key new`.",
            ) from None

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Ends the block where there is no file; any other failure of the file system is a setting to correct."""
        try:
            yield
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BadSetting(
                f"{self._path} cannot be read: {error.strerror or type(error).__name__}.",
                "Give this process the right to read it, or name another file in API_KEYS_FILE.",
            ) from None


def _added(
    keys: Sequence[ApiKey], text: str, name: str, scopes: frozenset[Scope], today: date, expires_on: date | None
) -> tuple[tuple[ApiKey, ...], ApiKey]:
    new = ApiKey(_free_id(keys), name, hash_of(text), scopes, today, expires_on)
    return with_new(keys, new), new


def _free_id(keys: Sequence[ApiKey]) -> str:
    """Random digits, which neither an id nor a name is: `revoke` takes both."""
    taken = {key.id for key in keys} | {key.name for key in keys}
    while (drawn := secrets.token_hex(4)) in taken:
        pass
    return drawn


def _stamp(status: os.stat_result) -> _Stamp:
    """What differs as soon as the file has other content, or is open to others."""
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


# --- Rows ----------------------------------------------------------------------------------------------------------


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "sha256": key.sha256,
        "scopes": in_order(key.scopes),
        "created_on": key.created_on.isoformat(),
        "expires_on": key.expires_on and key.expires_on.isoformat(),
        "revoked_on": key.revoked_on and key.revoked_on.isoformat(),
    }


def _keys_in(document: Any) -> tuple[ApiKey, ...]:
    """The keys of a whole file. Raises ValueError, TypeError or KeyError for what was not written here."""
    if set(document) != {"version", "keys"} or document["version"] != VERSION:
        raise ValueError
    keys = tuple(_key(row) for row in document["keys"])
    if len({key.id for key in keys}) != len(keys):
        raise ValueError
    return keys


def _key(row: Any) -> ApiKey:
    if set(row) != set(_FIELDS):
        raise ValueError
    key = ApiKey(
        id=row["id"],
        name=row["name"],
        sha256=row["sha256"],
        scopes=frozenset(row["scopes"]),
        created_on=date.fromisoformat(row["created_on"]),
        expires_on=_day(row["expires_on"]),
        revoked_on=_day(row["revoked_on"]),
    )
    is_named = _ID.fullmatch(key.id) and NAME.fullmatch(key.name) and key.scopes and key.scopes <= frozenset(SCOPES)
    is_kept = key.sha256 is None if key.revoked_on else _HASH.fullmatch(key.sha256 or "")
    if not is_named or not is_kept:
        raise ValueError
    return key


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
