"""Whatever is sent: no error of the server, the declared schema, nothing repeated, nothing half written; and what is
acknowledged is what a slow and obvious reference takes.

The reference reads with Python's own json module and judges by `core.events`. Where readers of JSON differ by design,
it says so: of two members of one name the last counts; NaN, infinities, numbers that a double cannot hold and halves of
surrogate pairs are no JSON; whole numbers may have 4,300 digits.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema_rs
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dpdau_assets.api.app import routes
from dpdau_assets.core.dates import epochs_of_day
from dpdau_assets.core.events import TOO_LONG, Event, Limits, row_of_object, validate
from dpdau_assets.core.facts import DaySet
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.limits import first_day, last_day
from dpdau_tests.api.asking import asking
from dpdau_tests.support.lengths import at_length
from resources.reading.erasure_files import REFERENCE_IS_ID, request_of

TODAY = date(2025, 2, 8)
MARK = "QZXWVJKY"
"""It stands in every id; none of its pieces is in a text of ours."""
PIECES = {MARK[at : at + 4] for at in range(len(MARK) - 3)}

MOST_SENT, MOST_UNPACKED, MOST_ROWS = 8 << 20, 64 << 20, 10_000
LONGEST_ID, LONGEST_METADATA = 1_024, 16_384

JSON_TYPES = (
    "application/json",
    "APPLICATION/JSON",
    "application/json; charset=utf-8",
    'application/json;charset="UTF-8"',
)
LINE_TYPES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl; charset=utf8",
    "application/x-jsonlines",
)
NO_TYPES = (
    None,
    "",
    "text/plain",
    "application/json; charset=latin-1",
    "application/json;charset=utf-16",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/json, text/plain",
)

NDJSON = LINE_TYPES[0]

MakeStore = Callable[..., Store]
Row = tuple[date, int, int]
"""Day, epoch and key."""


@dataclass(frozen=True)
class Sent:
    """A request: the body as it goes over the line, and what its headers say of it.

    `also` are headers that nothing follows from.
    """

    body: bytes = field(repr=False)
    content_type: str | None = JSON_TYPES[0]
    encoding: str | None = None
    explain: bool = False
    idempotency_key: bytes | None = None
    also: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        said = (self.content_type, self.encoding, self.explain, self.idempotency_key, self.also)
        return f"Sent({self.body[:300]!r}... {len(self.body)} bytes, {', '.join(map(repr, said))})"

    def headers(self) -> list[tuple[str, str | bytes]]:
        named = {"Content-Type": self.content_type, "Content-Encoding": self.encoding}
        kept: list[tuple[str, str | bytes]] = [(name, value) for name, value in named.items() if value is not None]
        key = [] if self.idempotency_key is None else [("Idempotency-Key", self.idempotency_key)]
        return [*kept, *key, *self.also]


# --- The reference -----------------------------------------------------------------------------------------------


class NotTaken(Exception):
    """The request is answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass(frozen=True)
class Judged:
    """The status, what the answer says besides, and what is kept if it is 202: who was active when, and removals."""

    status: int
    said: Mapping[str, Any]
    users: frozenset[tuple[str, date]] = frozenset()
    removals: tuple[Event, ...] = ()


Reference = Callable[[Sent, Limits], Judged]


def content_of(sent: Sent) -> bytes:
    """The body as it was before it was packed."""
    if len(sent.body) > MOST_SENT:
        raise NotTaken(413)
    encoding = (sent.encoding or "identity").lower()
    if encoding == "identity":
        return sent.body
    if encoding not in ("gzip", "x-gzip"):
        raise NotTaken(415)
    unpacked, rest = b"", sent.body
    while rest or not unpacked:
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(rest, MOST_UNPACKED + 1 - len(unpacked))
        except zlib.error:
            raise NotTaken(400) from None
        if len(unpacked) > MOST_UNPACKED:
            raise NotTaken(413)
        if not member.eof:
            raise NotTaken(400)
        rest = member.unused_data
        if not rest:
            break
    return unpacked


def decoded(text: bytes) -> Any:
    """The JSON value of a text. Raises ValueError for what is none."""
    try:
        value = json.loads(
            text.decode(), parse_constant=_none_such, parse_float=_finite, object_pairs_hook=_last_of_each_name
        )
    except RecursionError:
        raise ValueError from None
    _require_whole_characters(value)
    return value


def _none_such(_: str) -> float:
    raise ValueError


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError
    return value


def _last_of_each_name(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require_whole_characters([part for pair in pairs for part in pair])  # in what is passed over, too
    return dict(pairs)


def _require_whole_characters(value: Any) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for part in value:
            _require_whole_characters(part)


def values_of(sent: Sent, one: str, many: str, bare: str | None) -> list[Any]:
    content = content_of(sent)
    if sent.content_type in LINE_TYPES:
        values = [_of_line(line) for line in content.split(b"\n") if line.strip()]
    elif sent.content_type in JSON_TYPES:
        values = _members(content, one, many, bare)
    else:
        raise NotTaken(415)
    if not 1 <= len(values) <= MOST_ROWS:
        raise NotTaken(422)
    return values


def _of_line(line: bytes) -> Any:
    try:
        return decoded(line)
    except ValueError:
        return None


def _members(content: bytes, one: str, many: str, bare: str | None) -> list[Any]:
    try:
        value = decoded(content)
    except ValueError:
        raise NotTaken(422) from None
    if bare and isinstance(value, list):
        return value
    if bare and isinstance(value, dict) and bare in value:
        return [value]
    if not isinstance(value, dict) or len({one, many} & value.keys()) != 1:
        raise NotTaken(422)
    if one in value:
        return [value[one]]
    if not isinstance(value[many], list):
        raise NotTaken(422)
    return value[many]


def size_of(value: Any) -> int:
    """Characters and members of metadata."""
    if isinstance(value, dict):
        return len(value) + sum(size_of(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return len(value) + sum(map(size_of, value))
    return len(value) if isinstance(value, str) else 1


def event_of(value: Any, limits: Limits) -> Event | str:
    if isinstance(value, dict):
        user_id, metadata = value.get("user_id"), value.get("metadata")
        if isinstance(user_id, str) and len(user_id) > LONGEST_ID:
            return TOO_LONG
        if metadata is not None and size_of(metadata) > LONGEST_METADATA:
            return TOO_LONG
    return validate(row_of_object(value), limits)


def events_judged(sent: Sent, limits: Limits) -> Judged:
    judged = [event_of(value, limits) for value in values_of(sent, "event", "events", None)]
    bad = {place: reason for place, reason in enumerate(judged) if isinstance(reason, str)}
    good = [event for event in judged if isinstance(event, Event)]
    said = {"ingested": len(good), "rejected": len(bad), "rejected_by_reason": dict(Counter(bad.values()))}
    if sent.explain:
        said["errors"] = [{"index": place, "reason": reason} for place, reason in bad.items()]
    users = frozenset((event.user_id, event.day) for event in good if event.op == "+")
    return Judged(202 if good else 422, said, users, tuple(dict.fromkeys(event for event in good if event.op == "-")))


def erasures_judged(sent: Sent, limits: Limits) -> Judged:
    asked = [request_of(value, limits) for value in values_of(sent, "erasure", "erasures", "user_id")]
    people = {event.user_id for event in asked if isinstance(event, Event)}
    bad: dict[int, str] = {}
    for place, event in enumerate(asked):
        if isinstance(event, str):
            bad[place] = event
        elif len(event.user_id) > LONGEST_ID:
            bad[place] = f"user_id is longer than {LONGEST_ID:,} characters."
        elif event.reference in people:
            bad[place] = REFERENCE_IS_ID
    if bad:
        return Judged(422, {"errors": [{"field": f"erasures[{at}]", "rule": bad[at]} for at in sorted(bad)[:100]]})
    good = tuple(event for event in asked if isinstance(event, Event))
    said = {"received": len(good), "references": [event.reference for event in good], "parked": False}
    return Judged(202, said, removals=good)


# --- What is sent ------------------------------------------------------------------------------------------------


def _listed(texts: list[str]) -> str:
    return f"[{','.join(texts)}]"


DAYS = [(TODAY + timedelta(days=ago)).isoformat() for ago in (0, -1, -7, -30)]
ODD = [
    *("null", "true", "0", "-0", "1.5", "1e5", "5e-324", "1" * 30, "-9223372036854775809", "18446744073709551616"),
    *(
        "[]",
        "{}",
        "[[]]",
        '""',
        '"\\u0000"',
        '"\\ud83d\\ude00"',
        "[" * 150 + "]" * 150,
        '{"a":' * 100 + "1" + "}" * 100,
    ),
    *(f'"{"x" * 20_000}"', '"2025-02-30"', '"0001-01-01"', '"9999-12-31"', '"0000-00-00"', '"٢٠٢٥-02-01"'),
]
NO_JSON = [
    *(
        "1e400",
        "-1e400",
        "1" * 5000,
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "01",
        "'x'",
        "tru",
        "1 2",
        "/**/1",
        '"',
        "",
    ),
    *('"\\ud800"', '"\\uD83D\\uDE0"', '"\\udc00\\ud800"', '"a\nb"', "[1,]", '{"a":1,}', "[" * 5_000, '{"a":' * 5_000),
]
odd = st.integers(0, 11).flatmap(lambda number: st.sampled_from(ODD if number else NO_JSON))
texts = st.text(max_size=6).map(lambda text: json.dumps(MARK + text)) | st.text(max_size=6).map(
    lambda text: json.dumps(MARK + text, ensure_ascii=False)
)
few = st.sampled_from([f'"{MARK}{number}"' for number in range(6)])
ids = st.one_of(
    few,
    few,
    few,
    texts,
    st.sampled_from([f'"{MARK * 128}"', f'"{MARK * 128}x"', f'"\\ud800{MARK}"', f'"{MARK}\\u0000"', f'"\x00{MARK}"']),
    odd,
)
near = st.sampled_from([f'"{day}"' for day in DAYS])
days = near | near | odd | st.dates().map(lambda day: f'"{day}"') | texts
lists = st.lists(near, min_size=1, max_size=3).map(_listed) | st.lists(days, max_size=3).map(_listed) | odd
moments = st.one_of(
    st.sampled_from(
        ['"2025-02-01T23:59:60Z"', '"2025-02-01T10:00:00+14:00"', '"0001-01-01T00:00+14:00"', "1738400000"]
    ),
    st.floats().map(str),
    st.integers().map(str),
    odd,
)
metadata = st.one_of(lists.map(lambda text: f'{{"days":{text}}}'), odd, st.just(f'{{"{MARK * 2_100}":1}}'))
FIELDS = {
    "user_id": ids,
    "op": st.sampled_from(['"+"', '"-"', "null"]) | odd,
    "day": days,
    "ts": moments,
    "metadata": metadata,
    "through": days,
    "days": lists,
    "reference": st.sampled_from(['"ticket-1"', '"ticket-2"', f'"{MARK}1"', "null"]) | odd,
}
USUAL = {"user_id": ids, "day": near}


def members(names: Mapping[str, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    """`"name":value` of one of these names."""
    return st.one_of([values.map(lambda text, name=name: f'"{name}":{text}') for name, values in names.items()])


def objects(usual: Mapping[str, st.SearchStrategy[str]], names: list[str]) -> st.SearchStrategy[str]:
    """Objects with the usual members, and then some, of which one may come twice or be misspelt."""
    others = members({**{name: FIELDS[name] for name in names}, MARK: odd, "": odd})
    first = st.tuples(*(members({name: values}) for name, values in usual.items()))
    further = st.just([]) | st.just([]) | st.lists(others, max_size=2)
    return st.tuples(first, further).map(lambda parts: "{" + ",".join([*parts[0], *parts[1]]) + "}")


event_texts = objects(USUAL, ["user_id", "op", "day", "ts", "metadata"]) | objects(
    {"user_id": ids}, ["op", "day", "ts", "metadata"]
)
erasure_texts = objects({"user_id": ids}, ["through", "days", "reference", "user_id"])


def bodies(rows: st.SearchStrategy[str], one: str, many: str) -> st.SearchStrategy[tuple[str, bool]]:
    """Texts, and whether each is meant as lines."""
    some = st.lists(rows, min_size=1, max_size=6) | st.lists(rows | odd, max_size=6)
    json_texts = st.one_of(
        rows.map(lambda row: f'{{"{one}":{row}}}'),
        some.map(lambda each: f'{{"{many}":[{",".join(each)}]}}'),
        some.map(lambda each: f'{{"{many}":[{",".join(each)}]}}'),
        some.map(lambda each: f"[{','.join(each)}]"),
        rows,
        st.tuples(rows, some).map(lambda both: f'{{"{one}":{both[0]},"{many}":[{",".join(both[1])}]}}'),
        some.map(lambda each: f'{{"{many}":[],"{many}":[{",".join(each)}]}}'),
        rows.map(lambda row: f'{{"{many}":{row}}}'),
        odd,
        st.just(""),
    )
    line_texts = st.tuples(some, st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\n \n"])).map(
        lambda both: both[1].join(both[0])
    )
    return json_texts.map(lambda text: (text, False)) | line_texts.map(lambda text: (text, True))


@dataclass(frozen=True)
class Change:
    """At this share of the way through, so many bytes become others; or the body ends there."""

    at: float
    removed: int | None
    added: bytes

    def of(self, body: bytes) -> bytes:
        place = int(self.at * len(body))
        return body[:place] + self.added + (b"" if self.removed is None else body[place + self.removed :])


changes = st.builds(
    Change,
    st.floats(0, 1),
    st.sampled_from([0, 1, 1, 4, None]),
    st.binary(max_size=2)
    | st.sampled_from([b"\x00", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\n", b"\xff", b"\xed\xa0\x80"]),
)
few_changes = st.just([]) | st.just([]) | st.just([]) | st.just([]) | st.lists(changes, min_size=1, max_size=3)
encodings = st.sampled_from(["utf-8"] * 36 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])


@st.composite
def sendings(draw: st.DrawFn, texts_of: st.SearchStrategy[tuple[str, bool]]) -> Sent:
    text, is_lines = draw(texts_of)
    body = text.encode(draw(encodings), "replace")
    for change in draw(few_changes):
        body = change.of(body)
    fitting, other = (LINE_TYPES, JSON_TYPES) if is_lines else (JSON_TYPES, LINE_TYPES)
    content_type = draw(st.sampled_from(fitting * 16 + other + NO_TYPES))
    encoding = draw(
        st.sampled_from(
            [None] * 16 + ["gzip"] * 6 + ["", "identity", "gzip", "gzip", "X-GZIP", "deflate", "br", "gzip, gzip"]
        )
    )
    if encoding not in (None, "", "identity") and draw(st.integers(0, 9)):
        body = gzip.compress(body, 1, mtime=0)
        for change in draw(few_changes):
            body = change.of(body)
    return Sent(body, content_type, encoding, draw(st.booleans()), draw(idempotency_keys), draw(harmless))


idempotency_keys = st.one_of(
    *[st.none()] * 12,
    *[st.sampled_from([b"1", b"2", b"3"])] * 3,
    st.sampled_from([b"~" * 255, b"!" * 256, b"", b" 1", b"\xe9", b"1\x00", b"1 2"]),
    st.binary(min_size=1, max_size=4),
)
harmless = st.sampled_from(
    [
        (),
        (("Accept", "text/csv;q=x, */*"), ("If-None-Match", "*"), ("Range", "bytes=0-1")),
        (("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Host", MARK), ("Forwarded", "for=_hidden")),
        (("Cookie", f"session={MARK}"), ("Origin", f"https://{MARK}.example"), ("Referer", MARK)),
        (("X-Request-ID", MARK), ("Expect", "100-continue"), ("User-Agent", MARK)),
        (("X-HTTP-Method-Override", "DELETE"), ("Authorization", f"Basic {MARK}")),
    ]
)


# --- The tests ---------------------------------------------------------------------------------------------------


@dataclass
class Fuzzed:
    """A store, its server, and what should have come of all that was sent.

    Attributes:
        users: who was active, and when.
        removals: person, days and reference, as often as one request has asked for just that.
        without_keys: removals of days that can hold nothing: none of them is known again.
        answered: by Idempotency-Key: the request that was taken under it.
        batches: what was found in each batch of the inbox.
    """

    store: Store
    client: TestClient
    limits: Limits
    users: set[tuple[str, date]] = field(default_factory=set)
    removals: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    without_keys: int = 0
    answered: dict[bytes, tuple[Any, Judged]] = field(default_factory=dict)
    batches: dict[str, frozenset[Row]] = field(default_factory=dict, repr=False)

    def ask(self, path: str, sent: Sent, reference: Reference) -> int:
        """Send it, and hold the answer and what was written to the reference; the status."""
        before = self.held()
        judged, is_replayed = self.judged(path, sent, reference)
        target = f"{path}?explain={int(sent.explain)}" if path == "/event" else path
        answer = self.client.post(target, content=sent.body, headers=sent.headers())
        assert answer.status_code == judged.status, answer.text
        assert ("idempotency-replayed" in answer.headers) == is_replayed
        _require_declared(path, answer)
        spoken = answer.json()
        assert {name: spoken.get(name) for name in judged.said} == judged.said
        if judged.status != 202 or is_replayed:
            assert self.held() == before
        if judged.status != 202:
            repeated = f"{answer.text} {dict(answer.headers)}".upper()
            assert not [piece for piece in PIECES if piece in repeated]
        return judged.status

    def judged(self, path: str, sent: Sent, reference: Reference) -> tuple[Judged, bool]:
        """What the reference says, and whether it has been said before; what is new is noted."""
        key = sent.idempotency_key
        if key is not None and not re.fullmatch(rb"[\x21-\x7e]{1,255}", key):
            return Judged(422, {}), False
        try:
            judged, content = reference(sent, self.limits), content_of(sent)
        except NotTaken as refused:
            return Judged(refused.status, {}), False
        asked = (path, sent.explain and path == "/event", sent.content_type, content)
        if key in self.answered:
            same, before = self.answered[key]
            return (before, True) if same == asked else (Judged(422, {"code": "IdempotencyKeyReused"}), False)
        if judged.status == 202:
            self.note(judged)
            if key is not None:
                self.answered[key] = asked, judged
        return judged, False

    def note(self, judged: Judged) -> None:
        known = [event for event in judged.removals if event.day >= self.limits.first]
        self.users |= judged.users
        self.removals |= Counter((event.user_id, str(event.days or event.day), event.reference) for event in known)
        self.without_keys += len(judged.removals) - len(known)

    def held(self) -> tuple[frozenset[Row], int]:
        """Every keyed row that is in the log or the inbox, and how many erasures are on record."""
        log, inbox = self.store.events.log, self.store.events.inbox
        waiting: frozenset[Row] = frozenset()
        there: list[str] | None = None
        while there != log.segments():  # what is sealed meanwhile has another name, and then is a batch
            there = log.segments()
            waiting = _rows(day_set for name in there for day_set in log.read(name))
            for name in inbox.batches():
                if name not in self.batches:  # they never change
                    self.batches[name] = _rows(inbox.read([name]))
        return waiting.union(*self.batches.values()), len(self.store.erasures.ledger.erasures())

    def expected(self) -> tuple[frozenset[Row], int]:
        settings, salts = self.store.settings, self.store.state.salts
        rows = frozenset(
            (day, epoch, user_key(salts.epoch_keys([epoch])[epoch].secret, user_id))
            for user_id, day in self.users
            for epoch in epochs_of_day(day, settings.hash_salt_rotation_days, settings.mau_window_days)
        )
        return rows, self.removals.total() + self.without_keys


def _rows(sets: Iterable[DaySet]) -> frozenset[Row]:
    return frozenset((each.day, each.epoch, key) for each in sets for key in each.keys.tolist())


@pytest.fixture
def fuzzed(make_store: MakeStore) -> Iterator[Fuzzed]:
    """At the end exactly what was acknowledged is there, and no id anywhere."""
    store = make_store(today=TODAY)
    limits = Limits(
        first_day(store.settings, store.accountant), last_day(store.clock), ZoneInfo(store.settings.timezone)
    )
    with asking(store, rate_limit_events_per_minute=10**9) as client:
        fuzzed = Fuzzed(store, client, limits)
        yield fuzzed
        assert client.get("/healthz").status_code == 200
    assert fuzzed.held() == fuzzed.expected()
    assert not [path for path in files_in(store) if MARK.encode() in path.read_bytes()]


def files_in(store: Store) -> list[Path]:
    return [path for path in store.settings.data_dir.rglob("*") if path.is_file()]


DOCUMENT = routes(Settings()).openapi()


def _require_declared(path: str, answer: Any) -> None:
    """The answer's status is declared, and its body has the schema that the document has for it."""
    kind = answer.headers["content-type"].partition(";")[0]
    declared = DOCUMENT["paths"][path]["post"]["responses"][str(answer.status_code)]["content"][kind]["schema"]
    jsonschema_rs.validate({**declared, "components": DOCUMENT["components"]}, answer.json())


CAREFULLY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate],  # what fails depends on what came before: nothing shorter can be found
)


@pytest.mark.also_long(weight=2)
@settings(CAREFULLY, max_examples=at_length(test=40, ci=450, soak=8_000))
@given(sent=sendings(bodies(event_texts, "event", "events")))
def test_events_are_taken_as_the_reference_takes_them_and_nothing_else_is_kept(fuzzed: Fuzzed, sent: Sent) -> None:
    fuzzed.ask("/event", sent, events_judged)


@pytest.mark.also_long
@settings(CAREFULLY, max_examples=at_length(test=15, ci=150, soak=3_000))
@given(sent=sendings(bodies(erasure_texts, "erasure", "erasures")))
def test_erasures_are_recorded_as_the_reference_records_them_and_nothing_else_is(fuzzed: Fuzzed, sent: Sent) -> None:
    fuzzed.ask("/erasure", sent, erasures_judged)


def extremes(one: str, many: str) -> Iterator[Sent]:
    """What chance would not come upon."""
    row = (
        f'{{"user_id":"{MARK}","day":"{DAYS[1]}"}}'
        if one == "event"
        else f'{{"user_id":"{MARK}","through":"{DAYS[1]}"}}'
    )
    good = f'{{"{one}":{row}}}'.encode()
    packed = gzip.compress(good, mtime=0)
    lines = NDJSON

    yield from (
        Sent(each) for each in (b"", b" \n\t", b"\x00" * 1_000, b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"))
    )
    yield from (
        Sent(each, encoding="gzip") for each in (b"", packed, packed[:-9], packed[:9], packed + b"\x00", packed + b"x")
    )
    yield Sent(packed[:-6] + b"\x00\x00" + packed[-4:], encoding="gzip")  # a wrong checksum
    yield Sent(gzip.compress(good[:9], mtime=0) + gzip.compress(good[9:], mtime=0), encoding="gzip")
    yield Sent(gzip.compress(packed, mtime=0), encoding="gzip")
    yield Sent(gzip.compress(bytes(MOST_UNPACKED + 1), 1, mtime=0), encoding="gzip")
    yield Sent(gzip.compress(good + b" " * MOST_UNPACKED, 1, mtime=0), encoding="gzip")
    yield Sent(good + b" " * MOST_SENT)
    yield Sent(good + b" " * (MOST_SENT - len(good)))
    for opened, closed in (
        (b"[", b"]"),
        (b'{"a":', b"1}"),
        (f'{{"{one}":'.encode(), b"}"),
        (f'{{"{many}":['.encode(), b"]}"),
    ):
        yield Sent(opened * 100_000)
        yield Sent(opened * 100_000 + closed * 100_000)
    yield Sent(good.replace(b"}}", b',"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"))
    yield Sent(b"\n".join([row.encode(), b"[" * 100_000, row.encode()]), lines, explain=True)
    yield Sent(good.replace(MARK.encode(), MARK.encode() * 125_000))
    yield Sent(good.replace(b"}}", b',"metadata":{"days":["' + MARK.encode() * 125_000 + b'"]}}}'))
    yield Sent(good.replace(b"}}", b',"ts":1' + b"0" * 1_000_000 + b"}}"))
    yield Sent(good.replace(b"}}", b',"ts":1e-' + b"9" * 100_000 + b"}}"))
    yield Sent(good.replace(b"}}", b',"x":1' * 100_000 + b"}}"))
    yield Sent(good.replace(b"{", b'{"user_id":"' + MARK.encode() * 200 + b'",', 2))
    for number in (MOST_ROWS, MOST_ROWS + 1):
        yield Sent(f'{{"{many}":[{",".join([row] * number)}]}}'.encode())
        yield Sent(f'{{"{many}":[{",".join(["1"] * number)}]}}'.encode())
        yield Sent("\n\n".join([row] * number).encode(), lines)
    yield Sent((row + "\n" * 100_000).encode(), lines)
    yield Sent(
        "\r\n".join(["", row, "nothing", "{", row, "[]", "7", row[:-1], "\x0b", ""]).encode(), lines, explain=True
    )
    yield Sent(b"\n".join([b"\xff" * 100, b"\x00", row.encode("utf-16"), row.encode()]), lines, explain=True)


def test_the_extremes_of_events_are_answered_as_the_reference_answers_them(fuzzed: Fuzzed) -> None:
    statuses = {fuzzed.ask("/event", sent, events_judged) for sent in extremes("event", "events")}
    assert statuses == {202, 400, 413, 422}


@pytest.mark.slow(weight=0.2)
def test_the_extremes_of_erasures_are_answered_as_the_reference_answers_them(fuzzed: Fuzzed) -> None:
    statuses = {fuzzed.ask("/erasure", sent, erasures_judged) for sent in extremes("erasure", "erasures")}
    assert statuses == {202, 400, 413, 422}
