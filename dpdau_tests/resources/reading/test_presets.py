"""Vendors' exports, in the shapes that their public pages document, with made-up people: docs/sources.md cites them.

Each is taken through the real engine into a real store, and leaves the bytes that plain events leave.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dpdau_assets.core.dates import epochs_of_day
from dpdau_assets.core.errors import BadInput
from dpdau_assets.core.event_shape import PLAIN
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.state.activity import process_days
from dpdau_tests.conftest import copied
from dpdau_tests.support.prepared import Prepared
from resources.reading.event_files import event_files
from resources.reading.field_sql import Columns, event_fields
from resources.reading.presets import PRESETS, looks_like

FIRST = datetime(2025, 2, 1, tzinfo=UTC)
DAYS = [FIRST.date() + timedelta(days=n) for n in range(3)]
TODAY = date(2025, 3, 1)
UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Seen:
    """Somebody at a moment. Who is not active only had something happen to them."""

    person: str
    at: datetime
    is_active: bool = True
    is_known: bool = True
    """Whether they have signed in; else the vendor knows their device or browser alone."""


def seen(person: int, hours: float, **kind: bool) -> Seen:
    return Seen(f"{1000 + person}", FIRST + timedelta(hours=hours, microseconds=123_000), **kind)


ROWS = [
    seen(1, 0),
    seen(1, 23.99),
    seen(2, 24),
    seen(3, 47.5, is_known=False),
    seen(4, 49),
    seen(4, 12, is_active=False),
    seen(5, 13, is_active=False),
    seen(6, 71.99),
    seen(6, 1, is_known=False),
]

Write = Callable[[Path], Path]


def lines(name: str, rows: Iterable[dict[str, Any]]) -> Write:
    text = "".join(json.dumps(row) + "\n" for row in rows)

    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def parquet(name: str, columns: dict[str, pa.DataType], rows: Iterable[dict[str, Any]]) -> Write:
    table = pa.Table.from_pylist(list(rows), pa.schema(list(columns.items())))

    def write(folder: Path) -> Path:
        pq.write_table(table, folder / name)
        return folder / name

    return write


def csv(name: str, columns: list[str], rows: Iterable[dict[str, Any]], delimiter: str = ",") -> Write:
    texts = {column: pa.string() for column in columns}
    table = pa.Table.from_pylist(list(rows), pa.schema(list(texts.items())))

    def write(folder: Path) -> Path:
        options = pyarrow.csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
        pyarrow.csv.write_csv(table, folder / name, options)
        return folder / name

    return write


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plainly(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def call(row: Seen) -> dict[str, Any]:
    """A call as Segment and RudderStack write it."""
    kind = {"type": "track", "event": "Opened"} if row.is_active else {"type": "identify", "traits": {"plan": "x"}}
    return {
        **kind,
        "anonymousId": f"a{row.person}" if row.is_known else row.person,
        "userId": row.person if row.is_known else None,
        "messageId": f"m{row.at.timestamp()}",
        "context": {"app": {"name": "app"}},
        "integrations": {"All": True},
        "sentAt": iso(row.at + timedelta(days=9)),
        "receivedAt": iso(row.at + timedelta(days=9)),
        "originalTimestamp": iso(row.at),
        "timestamp": iso(row.at),
    }


def call_of_warehouse(row: Seen) -> dict[str, Any]:
    return {
        "id": f"m{row.at.timestamp()}",
        "anonymous_id": f"a{row.person}" if row.is_known else row.person,
        "user_id": row.person if row.is_known else None,
        "event": "opened",
        "event_text": "Opened",
        "received_at": row.at + timedelta(days=9),
        "sent_at": row.at + timedelta(days=9),
        "timestamp": row.at,
        "context_app_name": "app",
    }


CALL_TYPES = {
    "id": pa.string(),
    "anonymous_id": pa.string(),
    "user_id": pa.string(),
    "event": pa.string(),
    "event_text": pa.string(),
    "received_at": UTC_MICROSECONDS,
    "sent_at": UTC_MICROSECONDS,
    "timestamp": UTC_MICROSECONDS,
    "context_app_name": pa.string(),
}
ACTIVE = [row for row in ROWS if row.is_active]
TRACKS = [call_of_warehouse(row) for row in ACTIVE]
TRACKS_AS_TEXT = [{name: iso(v) if isinstance(v, datetime) else v for name, v in row.items()} for row in TRACKS]


def of_posthog(row: Seen) -> dict[str, Any]:
    return {
        "uuid": f"u{row.at.timestamp()}",
        "event": "$pageview" if row.is_active else "$identify",
        "distinct_id": row.person,
        "person_id": f"p{row.person}",
        "properties": {"$browser": "Firefox"},
        "person_properties": {},
        "elements_chain": "",
        "timestamp": row.at,
        "created_at": row.at + timedelta(days=1),
        "_inserted_at": row.at + timedelta(days=1),
    }


def of_posthog_in_lines(row: Seen) -> dict[str, Any]:
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in of_posthog(row).items()}


def of_posthog_in_parquet(row: Seen) -> dict[str, Any]:
    return {name: json.dumps(v) if isinstance(v, dict) else v for name, v in of_posthog(row).items()}


POSTHOG_TYPES = {
    name: UTC_MICROSECONDS if isinstance(value, datetime) else pa.string()
    for name, value in of_posthog(ROWS[0]).items()
}


def of_amplitude(row: Seen) -> dict[str, Any]:
    return {
        "uuid": f"u{row.at.timestamp()}",
        "app": 187520,
        "amplitude_id": 900_000_000_000 + int(row.person),
        "user_id": row.person if row.is_known else None,
        "device_id": f"d{row.person}" if row.is_known else row.person,
        "event_type": "session_start" if row.is_active else "$identify",
        "event_time": plainly(row.at),
        "client_event_time": plainly(row.at),
        "server_upload_time": plainly(row.at + timedelta(days=1)),
        "event_properties": {},
        "user_properties": {"plan": "x"},
        "session_id": int(row.at.timestamp() * 1000),
        "data": {},
    }


def of_mixpanel(row: Seen) -> dict[str, Any]:
    properties = {"time": int(row.at.timestamp()), "distinct_id": row.person, "$insert_id": f"i{row.at.timestamp()}"}
    return {"event": "Opened" if row.is_active else "$identify", "properties": {**properties, "$city": "Oslo"}}


def of_ga4(row: Seen) -> dict[str, Any]:
    return {
        "event_date": (row.at - timedelta(hours=8)).strftime("%Y%m%d"),  # of the property's zone, Los Angeles
        "event_timestamp": int(row.at.timestamp() * 1_000_000),
        "event_name": "session_start" if row.is_active else "notification_receive",
        "event_params": [{"key": "ga_session_id", "value": {"string_value": None, "int_value": 7}}],
        "user_id": row.person if row.is_known else None,
        "user_pseudo_id": f"d{row.person}" if row.is_known else row.person,
        "platform": "ANDROID",
    }


def of_ga4_in_lines(row: Seen) -> dict[str, Any]:
    """BigQuery's JSON: an INT64 is text, and what is null is left out."""
    fields = {**of_ga4(row), "event_timestamp": str(of_ga4(row)["event_timestamp"])}
    return {name: value for name, value in fields.items() if value is not None}


GA4_TYPES = {
    "event_date": pa.string(),
    "event_timestamp": pa.int64(),
    "event_name": pa.string(),
    "event_params": pa.list_(
        pa.struct({"key": pa.string(), "value": pa.struct({"string_value": pa.string(), "int_value": pa.int64()})})
    ),
    "user_id": pa.string(),
    "user_pseudo_id": pa.string(),
    "platform": pa.string(),
}


def of_snowplow(row: Seen) -> dict[str, Any]:
    return {
        "app_id": "web",
        "platform": "web",
        "collector_tstamp": row.at + timedelta(hours=20),
        "dvce_created_tstamp": row.at - timedelta(days=40),
        "event": "page_view",
        "event_id": f"e{row.at.timestamp()}",
        "user_id": row.person if row.is_known else None,
        "domain_userid": f"d{row.person}" if row.is_known else row.person,
        "network_userid": f"n{row.person}",
        "derived_tstamp": row.at,
    }


SNOWPLOW_TYPES = {name: UTC_MICROSECONDS if name.endswith("_tstamp") else pa.string() for name in of_snowplow(ROWS[0])}
SNOWPLOW_AS_TEXT = [
    {name: plainly(v)[:-3] if isinstance(v, datetime) else v for name, v in of_snowplow(row).items()} for row in ACTIVE
]

EXPORTS: dict[str, tuple[str, Write]] = {
    "segment in JSON Lines": ("segment", lines("e.jsonl.gz", map(call, ROWS))),
    "segment's tracks in Parquet": ("segment", parquet("e.parquet", CALL_TYPES, TRACKS)),
    "rudderstack in JSON Lines": ("rudderstack", lines("e.json", ({**call(row), "channel": "web"} for row in ROWS))),
    "rudderstack's tracks in CSV": (
        "rudderstack",
        csv("e.csv", [*CALL_TYPES, "channel"], ({**row, "channel": "web"} for row in TRACKS_AS_TEXT)),
    ),
    "posthog in JSON Lines": ("posthog", lines("e.jsonl", map(of_posthog_in_lines, ROWS))),
    "posthog in Parquet": ("posthog", parquet("e.parquet", POSTHOG_TYPES, map(of_posthog_in_parquet, ROWS))),
    "posthog in Parquet, named after its inner packing": (
        "posthog",
        parquet("e.parquet.zst", POSTHOG_TYPES, map(of_posthog_in_parquet, ROWS)),
    ),
    "amplitude in JSON Lines": ("amplitude", lines("e.json.gz", map(of_amplitude, ROWS))),
    "mixpanel in JSON Lines": ("mixpanel", lines("e.jsonl", map(of_mixpanel, ROWS))),
    "ga4 in Parquet": ("ga4", parquet("e.parquet", GA4_TYPES, map(of_ga4, ROWS))),
    "ga4 in JSON Lines": ("ga4", lines("e.json", map(of_ga4_in_lines, ROWS))),
    "snowplow in Parquet": ("snowplow", parquet("e.parquet", SNOWPLOW_TYPES, map(of_snowplow, ACTIVE))),
    "snowplow in TSV with names": ("snowplow", csv("e.tsv", list(SNOWPLOW_TYPES), SNOWPLOW_AS_TEXT, "\t")),
}

BY_NAME = [{"user_id": row.person, "day": row.at.date().isoformat()} for row in ACTIVE]
PLAIN_EVENTS: dict[str, Write] = {
    "CSV": csv("e.csv", ["user_id", "day"], BY_NAME),
    "JSON": lines("e.jsonl", BY_NAME),
    "Parquet": parquet("e.parquet", {"user_id": pa.string(), "day": pa.string()}, BY_NAME),
}


def with_keys(store: Store) -> None:
    """The keys of the epochs that these days are kept under."""
    rotation, longest = store.settings.hash_salt_rotation_days, store.settings.mau_window_days
    store.state.salts.epoch_keys({epoch for day in DAYS for epoch in epochs_of_day(day, rotation, longest)})


def state_after(store: Store, path: Path, preset: str | None = None) -> dict[str, bytes]:
    """The files of the state once an input was taken in and folded."""
    shape = PRESETS[preset].shape if preset else PLAIN
    report = ingest(event_files(path), store, shape=shape)
    assert (report.rejected, report.ingested) == (0, len(ACTIVE))
    process_days(DAYS, store)
    folder = store.settings.data_dir / "activity"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def plain_state(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("plain")
    state = state_after(copied(prepared, with_keys, folder / "store", TODAY), PLAIN_EVENTS["CSV"](folder))
    assert len(state) >= len(DAYS)
    return state


@pytest.mark.parametrize("export", EXPORTS)
def test_people_counted_through_a_preset_leave_the_state_that_plain_events_leave(
    make_store: Callable[..., Store], tmp_path: Path, plain_state: dict[str, bytes], export: str
) -> None:
    preset, write = EXPORTS[export]
    assert state_after(make_store("vendor", TODAY, with_keys), write(tmp_path), preset) == plain_state


@pytest.mark.parametrize("kind", ["JSON", "Parquet"])
def test_people_leave_one_state_whatever_the_format(
    make_store: Callable[..., Store], tmp_path: Path, plain_state: dict[str, bytes], kind: str
) -> None:
    assert state_after(make_store("other", TODAY, with_keys), PLAIN_EVENTS[kind](tmp_path)) == plain_state


@pytest.mark.parametrize(("preset", "types"), [("segment", CALL_TYPES), ("posthog", POSTHOG_TYPES)])
def test_a_vendor_s_file_without_its_preset_is_refused_with_the_preset_s_name(
    preset: str, types: dict[str, pa.DataType]
) -> None:
    with duckdb.connect() as connection:
        relation = connection.from_arrow(pa.schema(list(types.items())).empty_table())
        columns = dict(zip(relation.columns, relation.types, strict=True))
        columns.pop("user_id", None)
    with pytest.raises(BadInput, match=f"add --preset {preset}"):
        event_fields(PLAIN, Columns("e.parquet", columns))


SHAPES = {
    "segment": list(call(ROWS[0])),
    "rudderstack": [*call(ROWS[0]), "channel"],
    "posthog": list(POSTHOG_TYPES),
    "amplitude": list(of_amplitude(ROWS[0])),
    "mixpanel": list(of_mixpanel(ROWS[0])),
    "ga4": list(GA4_TYPES),
    "snowplow": [name.upper() for name in SNOWPLOW_TYPES],
}


def test_every_vendor_is_known_by_its_columns() -> None:
    found = {name: looks_like(columns) for name, columns in SHAPES.items()}
    assert {name: preset and preset.name for name, preset in found.items()} == {name: name for name in PRESETS}


@pytest.mark.parametrize("names", [[], ["user_id", "day", "op"], ["distinct_id", "day"], ["event", "time"]])
def test_columns_of_nobody_look_like_no_vendor(names: list[str]) -> None:
    assert looks_like(names) is None


def test_a_preset_says_what_a_row_is_and_reads_no_removals() -> None:
    for preset in PRESETS.values():
        assert preset.shape.fields["op"].constant == "+" and not preset.shape.fields["op"].paths
        assert {"user_id", "ts", "op"} == set(preset.shape.fields)
