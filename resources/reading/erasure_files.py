"""Files of erasure requests, CSV or JSON Lines: who is to be erased, and from which days.

A file is taken whole or not at all: one bad row refuses it. No error quotes what a row holds; raw ids stay in memory.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from dpdau_assets.core import events
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.events import Event, Limits, row_of_object, validate
from dpdau_assets.core.user_ids import normalize
from resources.reading.event_csv import Meant, csv_rows, delimiter_of
from resources.reading.event_files import COLUMNS as OF_EVENTS
from resources.reading.event_files import event_file
from resources.reading.event_tables import json_tables
from resources.reading.file_names import text_format_of
from resources.reading.json_layout import LINES

LIMITS = ("through", "erase_day", "days", "metadata.days")
COLUMNS = ("user_id", *LIMITS, "reference")
REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
BAD_REFERENCE = "reference is not 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen."
REFERENCE_IS_ID = "reference is a user_id of this file: a reference must name nobody."
TWO_LIMITS = "Only one of through, erase_day, days and metadata.days may be given."
MISSPELT = "A field's name is almost that of a known one."
SHOWN_LINES = 20

_ALMOST = (*LIMITS, "day", "date", "until")  # what is passed over must not have been meant as a limit
_CLOSE = 0.6
_MEANT = Meant(frozenset(["user_id"]), None, frozenset([*LIMITS, "reference"]))
_RULES = (
    "A request has user_id, at most one of through (or erase_day) and days, and perhaps a reference; other fields are "
    "passed over."
)
_IN_OUR_WORDS = {
    events.BAD_DAY: events.BAD_DAY.replace("day", "through", 1),
    events.BAD_LIST: events.BAD_LIST.replace("metadata.days", "days"),
    events.LIST_TOO_LATE: events.LIST_TOO_LATE.replace("metadata.days", "days"),
}

_Fields = Mapping[str, object]


@dataclass(frozen=True)
class RequestFile:
    """The requests of a file, in order; and the lines whose id is almost that of another one, see `alike`."""

    asked: tuple[Event, ...]
    alike: tuple[int, ...]


def read_requests(path: Path, limits: Limits) -> RequestFile:
    """What a file asks for; a row without a day reaches through the last that events may have.

    Raises BadInput, naming lines and reasons, when any row is bad, and for a file that cannot be read.
    """
    asked: dict[int, Event] = {}
    bad: dict[int, str] = {}
    for line, fields in _rows(path):
        request = request_of(fields, limits)
        if isinstance(request, str):
            bad[line] = request
        else:
            asked[line] = request
    people = people_of(asked.values(), limits)
    bad |= {line: REFERENCE_IS_ID for line, event in asked.items() if event.reference in people}
    if bad:
        raise _refusal(path, sorted(bad.items()))
    return RequestFile(tuple(asked.values()), tuple(alike(asked)))


def people_of(asked: Iterable[Event], limits: Limits) -> set[str]:
    """The ids of these requests, and those of their references that are one of them in another spelling."""
    asked = list(asked)
    ids = {event.user_id for event in asked}
    references = {event.reference for event in asked if event.reference is not None}
    return ids | {reference for reference in references if normalize(reference, limits.normalize) in ids}


def alike(asked: Mapping[int, Event]) -> list[int]:
    """The lines whose id differs from that of another line by case, space around it or Unicode form alone.

    They are taken as the different people that they say they are; whoever wrote the file may have meant one.
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for event in asked.values():
        spellings[_plain(event.user_id)].add(event.user_id)
    return [line for line, event in asked.items() if len(spellings[_plain(event.user_id)]) > 1]


def _plain(user_id: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", user_id).casefold()).strip()


def request_of(fields: object, limits: Limits) -> Event | str:
    """The removal that these fields ask for, or the reason why they ask for none.

    Whom it names is spelled as `Limits.normalize` says, like the ids of events.
    """
    if not isinstance(fields, Mapping):
        return events.UNPARSABLE
    if misspelt(fields):
        return MISSPELT
    limit = {name: fields[name] for name in LIMITS if fields.get(name) is not None}
    if len(limit) > 1:
        return TWO_LIMITS
    through = limit.get("through", limit.get("erase_day"))
    metadata = {"days": limit.get("days", limit.get("metadata.days"))}
    row = row_of_object({"user_id": fields.get("user_id"), "op": "-", "day": through, "metadata": metadata})
    request = validate(row, limits)
    if isinstance(request, str):
        return _IN_OUR_WORDS.get(request, request)
    reference = fields.get("reference")
    if reference is None:
        return request
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        return BAD_REFERENCE
    names_them = normalize(reference, limits.normalize) == request.user_id
    return REFERENCE_IS_ID if names_them else replace(request, reference=reference)


def misspelt(names: Iterable[str]) -> list[str]:
    """The unknown names that may be meant to say which days: passing one over would erase more than was asked for."""
    unknown = [name for name in names if name not in COLUMNS]
    return [name for name in unknown if name in OF_EVENTS or get_close_matches(name.lower(), _ALMOST, 1, _CLOSE)]


def _rows(path: Path) -> Iterator[tuple[int, object]]:
    yield from _csv_requests(path) if text_format_of(path) == "csv" else _json_requests(path)


def _csv_requests(path: Path) -> Iterator[tuple[int, _Fields | None]]:
    file = event_file(path)
    with csv_rows(file, delimiter_of(file, COLUMNS), lambda _: _MEANT) as (names, rows):
        header = names or []  # of a file that holds nothing
        _require_request(header, path)
        for line, texts in rows:
            yield line, None if texts is None else _fields(dict(zip(header, texts, strict=True)))


def _fields(texts: Mapping[str, str]) -> _Fields:
    """An empty cell is none at all."""
    given = {name: text for name, text in texts.items() if text and name in COLUMNS}
    return {name: _days(text) if name in ("days", "metadata.days") else text for name, text in given.items()}


def _days(text: str) -> object:
    """The days in a cell: a JSON list, or dates separated by `;` as in a CSV of events, and by spaces too."""
    if text.startswith("["):
        return _decoded(text) or []  # an empty list is bad; no list at all would be a removal of everything
    return [day for part in text.split(";") for day in part.split() or [""]]


def _json_requests(path: Path) -> Iterator[tuple[int, object]]:
    for table in json_tables(event_file(path), LINES):
        for line, raw in zip(table["line"].to_pylist(), table["raw"].to_pylist(), strict=True):
            if raw is None or not re.fullmatch(r"[ \t\r\n]*", raw):
                yield line, None if raw is None else _decoded(raw)


def _decoded(raw: str) -> object:
    """The value of a JSON text; None for what is not JSON, or names something twice in one object."""
    try:
        return json.loads(raw, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _require_request(header: list[str], path: Path) -> None:
    """Without user_id, what stands there may be people: only then are no names told."""
    if "user_id" not in header:
        raise BadInput(f"The first line of {path} does not name user_id.", _RULES, path=str(path))
    if meant := misspelt(header):
        raise BadInput(f"{path} has the column {meant[0]}, which is not known.", _RULES, path=str(path))
    if len({name for name in header if name in COLUMNS}) < len([name for name in header if name in COLUMNS]):
        raise BadInput(f"{path} names a column twice.", _RULES, path=str(path))


def _refusal(path: Path, bad: list[tuple[int, str]]) -> BadInput:
    lines = "".join(f"\n  line {line}: {reason}" for line, reason in bad[:SHOWN_LINES])
    more = f"\n  and {len(bad) - SHOWN_LINES} more" if len(bad) > SHOWN_LINES else ""
    return BadInput(
        f"{path} has {len(bad)} bad row(s); nothing of it was taken.{lines}{more}",
        f"Correct them and hand the file in again. {_RULES}",
        path=str(path),
        lines=[line for line, _ in bad],
    )
