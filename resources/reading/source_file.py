"""SOURCES_FILE: named sources in TOML, each a table that says where an input lies and how it is read."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.event_shape import ActiveWhen, Field, FieldName
from resources.reading.columns_option import activity, column_written, field_written
from resources.reading.input_options import (
    InputOptions,
    delimiter_written,
    format_written,
    preset_shape,
    timeout_written,
    unit_written,
    zone_written,
)


def source_named(name: str, path: Path | None) -> InputOptions:
    """What the file says of the source of this name.

    Raises BadSetting for a file that cannot be read, a source that is not in it, and anything in the source's table
    that is not known or wrong.
    """
    if path is None:
        raise BadSetting("SOURCES_FILE is not set, so there are no named sources.", "Set it to the TOML file of them.")
    sources = _tables(path)
    table = sources.get(name)
    if not isinstance(table, dict):
        raise BadSetting(
            f"{path} has no source {name}.",
            f"It has {', '.join(sources)}." if sources else f"Begin one with [{name}].",
        )
    return _Source(name, path, table).options()


class _Source:
    """One table of the file, while it is read."""

    def __init__(self, name: str, path: Path, table: Mapping[str, Any]) -> None:
        self._table = table
        self._path = path
        self._where = f"Source {name} in {path}:"

    def options(self) -> InputOptions:
        read: dict[str, Callable[[str], Any]] = {
            "location": self._locations,
            "format": lambda key: format_written(self._text(key), self._at(key)),
            "encoding": self._text,
            "delimiter": lambda key: delimiter_written(self._text(key), self._at(key)),
            "preset": self._preset,
            "columns": self._columns,
            "active_when": self._activity,
            "unit": lambda key: unit_written(self._text(key), self._at(key)),
            "zone": lambda key: zone_written(self._text(key), self._at(key)),
            "sql": lambda key: self._path.parent / self._text(key),
            "timeout": lambda key: timeout_written(self._table[key], self._at(key)),
        }
        self._require_known(self._table, list(read), "")
        said = {key: read_one(key) for key, read_one in read.items() if key in self._table}
        return InputOptions(locations=said.pop("location", ()), **said)

    def _at(self, key: str) -> str:
        return f"{self._where} {key} ="

    def _text(self, key: str) -> str:
        return self._text_of(self._table[key], key)

    def _text_of(self, value: object, key: str) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise BadSetting(f"{self._at(key)} is not text.", 'Write it in quotes, as "...".')
        return value

    def _locations(self, key: str) -> tuple[str, ...]:
        value = self._table[key]
        return tuple(self._text_of(one, key) for one in (value if isinstance(value, list) else [value]))

    def _preset(self, key: str) -> str:
        preset_shape(self._text(key))
        return self._text(key)

    def _columns(self, key: str) -> Mapping[FieldName, Field]:
        table = self._inner(key)
        named = (
            field_written(name, self._text_of(text, f"{key}.{name}"), f"{self._where} {key}")
            for name, text in table.items()
        )
        return MappingProxyType(dict(named))

    def _activity(self, key: str) -> ActiveWhen:
        table = self._inner(key)
        self._require_known(table, ["column", "is", "is_not"], f"{key}.")
        kinds = [kind for kind in ("is", "is_not") if kind in table]
        values = table[kinds[0]] if len(kinds) == 1 else None
        if "column" not in table or not isinstance(values, list) or not values:
            raise BadSetting(
                f"{self._at(key)} does not say a column and a list of values.",
                'Write { column = "event", is = ["open"] }, or is_not for what is no activity.',
            )
        column = column_written(self._text_of(table["column"], f"{key}.column"), f"{self._where} {key}")
        return activity(column, [self._text_of(value, f"{key}.{kinds[0]}") for value in values], kinds == ["is"])

    def _inner(self, key: str) -> Mapping[str, Any]:
        value = self._table[key]
        if not isinstance(value, dict):
            raise BadSetting(f"{self._at(key)} is no table.", "Write it in braces, as { ... }.")
        return value

    def _require_known(self, table: Mapping[str, Any], known: list[str], inside: str) -> None:
        for key in table:
            if key not in known:
                close = get_close_matches(key, known, 1)
                raise BadSetting(
                    f"{self._where} {inside}{key} is not known.",
                    f"Is {close[0]} meant?" if close else f"There are {', '.join(known)}.",
                )


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"SOURCES_FILE={path} cannot be read: {error.strerror}."
        raise BadSetting(reason, "Correct the name, or make it readable.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"SOURCES_FILE={path} is no TOML: {error}.", "Correct it there.") from None
