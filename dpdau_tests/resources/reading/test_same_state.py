"""People leave the same bytes in the state, however the file that names them is written.

Each way of writing has people of its own, and all files are taken in at once: the state is that of plain events of all
of them only if each was read right. In CI each file is also scanned by itself.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.events import Limits
from dpdau_assets.core.facts import EpochKey
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_tests.support.s3_server import credentials, put_folder, require_s3, s3_server
from dpdau_tests.support.state_bytes import make_keys, state_after
from resources.reading.engine_duckdb import DuckDBEngine
from resources.reading.event_files import event_files

FIRST = datetime(2025, 2, 1, tzinfo=UTC)
DAYS = [FIRST.date() + timedelta(days=n) for n in range(3)]
TODAY = date(2025, 3, 1)
KEY = EpochKey(224, bytes(range(32)))
MOMENTS = [FIRST + timedelta(hours=hours, microseconds=123_000) for hours in (0, 12, 23.99, 24, 49, 71.9)]
"""At midnight, shortly before it, and far from it."""

Seen = Sequence[tuple[int, datetime]]
"""Who was active when."""


@dataclass(frozen=True)
class Way:
    """A way of writing: the file's name, what writes it, and how ids are spelled in plain events."""

    name: str
    content: Callable[[Seen], bytes]
    spelled: Callable[[int], str] = str


# --- Times --------------------------------------------------------------------------------------------------------


def _unix(per_second: int) -> Callable[[datetime], str]:
    return lambda at: str(
        int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * per_second // 10**6
    )


def _in_zone(hours: float, form: str) -> Callable[[datetime], str]:
    zone = timezone(timedelta(hours=hours))
    return lambda at: at.astimezone(zone).strftime(form)


TEXTS: Mapping[str, Callable[[datetime], str]] = {
    "iso": lambda at: at.isoformat(),
    "iso-z": _in_zone(0, "%Y-%m-%dT%H:%M:%SZ"),
    "lower": _in_zone(0, "%Y-%m-%dt%H:%M:%S.%fz"),
    "utc": _in_zone(0, "%Y-%m-%d %H:%M:%S UTC"),
    "naive": _in_zone(0, "%Y-%m-%d %H:%M:%S"),
    "minutes": _in_zone(0, "%Y-%m-%dT%H:%M"),
    "nine": _in_zone(0, "%Y-%m-%dT%H:%M:%S.%f789+00"),
    "space-offset": _in_zone(-5.5, "%Y-%m-%d %H:%M:%S.%f %z"),
    "colon-offset": lambda at: at.astimezone(timezone(timedelta(hours=13.75))).isoformat(" "),
    "s": _unix(1),
    "ms": _unix(10**3),
    "us": _unix(10**6),
    "ns": _unix(10**9),
    "fraction": lambda at: f"{at.timestamp():.3f}",
    "date": _in_zone(0, "%Y-%m-%d"),
    "compact": _in_zone(0, "%Y%m%d"),
}
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _moments(kind: pa.DataType) -> Callable[[Seen], pa.Array]:
    return lambda seen: pa.array([at for _, at in seen], pa.timestamp("us", "UTC")).cast(kind, safe=False)


def _numbers(per_second: int, kind: pa.DataType) -> Callable[[Seen], pa.Array]:
    return lambda seen: pa.array([int(_unix(per_second)(at)) for _, at in seen]).cast(kind)


TYPED: Mapping[str, Callable[[Seen], pa.Array]] = {
    **{f"zoned-{unit}": _moments(pa.timestamp(unit, "Europe/Berlin")) for unit in UNITS},
    **{f"naive-{unit}": _moments(pa.timestamp(unit)) for unit in UNITS},
    **{f"int-{unit}": _numbers(size, pa.int64()) for unit, size in UNITS.items()},
    "double": lambda seen: pa.array([at.timestamp() for _, at in seen]),
    "decimal": lambda seen: pa.array([Decimal(int(at.timestamp())) for _, at in seen], pa.decimal128(18, 2)),
    "date32": lambda seen: pa.array([at.date() for _, at in seen], pa.date32()),
    "date64": lambda seen: pa.array([at.date() for _, at in seen], pa.date64()),
    "compact": lambda seen: pa.array([int(f"{at:%Y%m%d}") for _, at in seen], pa.int32()),
    "text": lambda seen: pa.array([at.isoformat() for _, at in seen]),
}


# --- Files --------------------------------------------------------------------------------------------------------


def _table(
    time: Callable[[datetime], str], delimiter: str = ",", quoting: Any = csv.QUOTE_MINIMAL
) -> Callable[[Seen], str]:
    def text(seen: Seen) -> str:
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\n")
        writer.writerows([("user_id", "ts", "note"), *((person, time(at), "a,b;c") for person, at in seen)])
        return out.getvalue()

    return text


def _objects(time: Callable[[datetime], object], ids: Callable[[int], object] = int) -> Callable[[Seen], list[Any]]:
    return lambda seen: [{"note": None, "ts": time(at), "user_id": ids(person)} for person, at in seen]


def _lines(objects: Callable[[Seen], list[Any]]) -> Callable[[Seen], bytes]:
    return lambda seen: "".join(json.dumps(value) + "\n" for value in objects(seen)).encode()


def _parquet(
    times: Callable[[Seen], pa.Array], ids: Callable[[Seen], pa.Array] | None = None, **how: Any
) -> Callable[[Seen], bytes]:
    def content(seen: Seen) -> bytes:
        out = io.BytesIO()
        people = ids(seen) if ids else pa.array([str(person) for person, _ in seen])
        pq.write_table(pa.table({"user_id": people, "ts": times(seen)}), out, **how)
        return out.getvalue()

    return content


def _ids(make: Callable[[int], Any], kind: pa.DataType) -> Callable[[Seen], pa.Array]:
    return lambda seen: pa.array([make(person) for person, _ in seen], kind)


def _uuid(person: int) -> str:
    return str(UUID(int=person << 64 | person))


IDS: Mapping[str, Callable[[Seen], pa.Array]] = {
    "dictionary": lambda seen: _ids(str, pa.string())(seen).dictionary_encode(),
    "large": _ids(str, pa.large_string()),
    "binary": _ids(lambda person: str(person).encode(), pa.binary()),
    "int64": _ids(int, pa.int64()),
    "uint16": _ids(int, pa.uint16()),
    "decimal": _ids(Decimal, pa.decimal128(38, 3)),
    "double": _ids(float, pa.float64()),
}
ISO = TEXTS["iso"]
JSON_ROWS = _objects(ISO)


def ways() -> list[Way]:
    """Every way of writing; the day of people in folders stands in their names alone."""
    return [*_csv_ways(), *_json_ways(), *_parquet_ways(), *_folder_ways()]


def _csv_ways() -> Iterator[Way]:
    plain = _table(ISO)
    yield from (
        Way(f"time-{name}.csv", lambda seen, time=time: _table(time)(seen).encode()) for name, time in TEXTS.items()
    )
    for name, delimiter in (
        ("semicolon.csv", ";"),
        ("tab.csv", "\t"),
        ("pipe.csv", "|"),
        ("e.tsv", "\t"),
        ("e.psv", "|"),
    ):
        yield Way(name, lambda seen, delimiter=delimiter: _table(ISO, delimiter)(seen).encode())
    yield Way("quoted.csv", lambda seen: _table(ISO, quoting=csv.QUOTE_ALL)(seen).replace("\n", "\r\n").encode())
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le"):
        yield Way(f"{encoding}.csv", lambda seen, encoding=encoding: plain(seen).encode(encoding))
    yield Way("e.csv.gz", lambda seen: gzip.compress(plain(seen).encode()))
    yield Way("e.csv.bz2", lambda seen: bz2.compress(plain(seen).encode()))
    yield Way("e.csv.zst", lambda seen: pa.compress(plain(seen).encode(), codec="zstd", asbytes=True))


def _json_ways() -> Iterator[Way]:
    yield Way("e.jsonl", _lines(_objects(ISO, str)))
    yield Way("milliseconds.ndjson", _lines(_objects(lambda at: int(_unix(10**3)(at)))))
    yield Way("fractions.jsonl.gz", lambda seen: gzip.compress(_lines(_objects(datetime.timestamp, float))(seen)))
    yield Way("array.json", lambda seen: json.dumps(JSON_ROWS(seen), indent=1).encode())
    yield Way(
        "array.json.zst", lambda seen: pa.compress(json.dumps(JSON_ROWS(seen)).encode(), codec="zstd", asbytes=True)
    )
    yield Way("envelope.json", lambda seen: json.dumps({"sent": "x", "batch": JSON_ROWS(seen)}, indent=2).encode())
    yield Way("envelopes.jsonl", _lines(lambda seen: [{"events": [row]} for row in JSON_ROWS(seen)]))
    yield Way("utf-16.json", lambda seen: _lines(JSON_ROWS)(seen).decode().encode("utf-16"))


def _parquet_ways() -> Iterator[Way]:
    yield from (Way(f"time-{name}.parquet", _parquet(times)) for name, times in TYPED.items())
    yield from (Way(f"id-{name}.parquet", _parquet(TYPED["zoned-us"], ids)) for name, ids in IDS.items())
    yield Way("uuid.parquet", _parquet(TYPED["int-ms"], _ids(lambda n: UUID(_uuid(n)).bytes, pa.uuid())), _uuid)
    yield Way("int96.parquet", _parquet(TYPED["naive-ns"], use_deprecated_int96_timestamps=True))
    yield Way("e.parquet.gz", lambda seen: gzip.compress(_parquet(TYPED["date32"])(seen)))


def _folder_ways() -> Iterator[Way]:
    for place, name in enumerate(("day", "dt", "event_date")):
        written = f"{DAYS[place]:%Y%m%d}" if name == "dt" else str(DAYS[place])
        yield Way(
            f"{name}={written}/part-0.csv", lambda seen: "".join(f"{n}\n" for n in ("user_id", *dict(seen))).encode()
        )


def seen_by(number: int, way: Way) -> Seen:
    """Six people of this way's own; where a folder names a day, all of them are of that day."""
    day = next((day for day in DAYS if str(day) in way.name or f"{day:%Y%m%d}" in way.name), None)
    people = [(1000 + 10 * number + place, at) for place, at in enumerate(MOMENTS)]
    return people if day is None else [(person, datetime.combine(day, at.timetz())) for person, at in people]


def put_all(folder: Path, chosen: Mapping[int, Way]) -> Path:
    """Write each of them into a folder of its own, so that no name hides another."""
    for number, way in chosen.items():
        path = folder / f"{number}" / way.name
        path.parent.mkdir(parents=True)
        path.write_bytes(way.content(seen_by(number, way)))
    return folder


def plainly(folder: Path, chosen: Mapping[int, Way]) -> Path:
    """All of these people as plain events, in CSV."""
    folder.mkdir()
    rows = [
        f"{way.spelled(person)},{at.date()}\n" for number, way in chosen.items() for person, at in seen_by(number, way)
    ]
    (folder / "e.csv").write_text("".join(["user_id,day\n", *rows]))
    return folder / "e.csv"


def with_keys(store: Store) -> None:
    """The keys of the epochs that these days are kept under."""
    make_keys(store, DAYS)


ALL = dict(enumerate(ways()))
MakeStore = Callable[..., Store]


def test_people_leave_one_state_however_their_files_are_written(make_store: MakeStore, tmp_path: Path) -> None:
    plain = state_after(make_store("plain", TODAY, with_keys), plainly(tmp_path / "plainly", ALL))
    assert len(plain) >= len(DAYS)
    assert state_after(make_store("other", TODAY, with_keys), put_all(tmp_path / "files", ALL)) == plain


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(number, id=way.name) for number, way in ALL.items()])
def test_people_of_each_file_are_found_on_their_days(tmp_path: Path, number: int) -> None:
    way, limits = ALL[number], Limits(DAYS[0], TODAY, ZoneInfo("UTC"))
    with DuckDBEngine().scan(event_files(put_all(tmp_path / "files", {number: way})), limits) as scan:
        found = {day_set.day: day_set.keys.tolist() for day_set in scan.user_days(KEY, limits.first, limits.last)}
        assert scan.rejections().total == 0
    wanted = {day: {person for person, at in seen_by(number, way) if at.date() == day} for day in DAYS}
    assert found == {
        day: sorted(user_key(KEY.secret, way.spelled(person)) for person in people)
        for day, people in wanted.items()
        if people
    }


@pytest.mark.slow
def test_people_in_a_bucket_leave_the_state_that_people_on_a_disk_leave(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_s3()
    plain = state_after(make_store("plain", TODAY, with_keys), plainly(tmp_path / "plainly", ALL))
    with s3_server() as address:
        for name, value in credentials(address).items():
            monkeypatch.setenv(name, value)
        put_folder(put_all(tmp_path / "files", ALL), "events")
        assert state_after(make_store("other", TODAY, with_keys), "s3://events") == plain
