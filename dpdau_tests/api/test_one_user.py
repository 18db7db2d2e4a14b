"""What is answered, logged and measured with and without one user: alike, but for what docs/privacy.md lets differ.

`two_worlds` says how noisy values, and with them ETags and lengths, come to be the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from dpdau_assets.api.app import routes
from dpdau_assets.core.settings import Settings
from dpdau_tests.api.two_worlds import CHAPTERS, ON_TIME, Course, Said, World, lived

_MISSING = "not there"
_LENGTHS = r"header content-length|log\[0\]\.bytes_out"  # these follow from the body


@dataclass(frozen=True)
class May:
    """Fields of answers that may differ, and why.

    Attributes:
        of: how the names of these answers begin.
        fields: a regular expression.
        always: whether they do in every pair of worlds; else an entry that nothing needs goes unseen.
        beside: only where this field of the same answer differs too.
    """

    why: str
    of: str
    fields: str
    always: bool = True
    beside: str | None = None


TIMES = May(
    "seconds are measured by the machine's clock, and take more digits or fewer", "GET /metrics", _LENGTHS, False
)
PARSED = May("parse results of what was just handed in", "POST /event", r"body\.ingested|body\.errors\[0\]\.index")
SHARES = May("shares", "GET /metrics", "dpdau_rejected_share", always=False)
SENT = May("bytes", "POST /event", r"log\[0\]\.bytes_in")
BYTES = May(
    "bytes",
    "GET /metrics",
    r"dpdau_(wal|wal_written|inbox)_bytes(_total)?|dpdau_http_request_bytes_total\{route=\"/event\"\}"
    r"|dpdau_http_response_bytes_total\{route=\"/(event|metrics|status)\"\}",
)
BATCHES = May(
    "batches, each of which is a request",
    "GET /metrics",
    r"dpdau_event_posts_accepted_total|dpdau_inbox_batches|dpdau_http_request_duration_seconds_count\{route=\"/event\"\}"
    r"|dpdau_http_requests_total\{method=\"POST\",route=\"/event\",status=\"202\"\}",
)
STALE = May("which partitions are stale, because the work needs it", "GET /status", r"body\.behind.*")
HASHES = May(
    "data versions are keyed hashes, and so is what is made of them",
    "GET  /erasure/{receipt}",
    r"body\.partitions\[.*\]\.(version|content_hash)|body\.(partitions_digest|hash|previous|signature)",
)
CHANCE = May(
    "drawn by chance, whoever asks",
    "GET  /erasure/{receipt}",
    r"body\.(partitions_nonce|reference_opening|reference_commitment)",
)
PARTITIONS = May(
    "which partitions there are: `late` has one of a day for which somebody came late",
    "GET  /erasure/{receipt}",
    r"body\.partitions\[late .*",
)
WAITING = May(
    "a receipt says verified only after everything was read back: events of hers that wait, until they are folded",
    "GET  /erasure/{receipt}",
    r"body\.survivors.*|body\.(state|verified|inspected_on)",
    beside="body.survivors[0].file",
)
ALLOWED = (TIMES, PARSED, SHARES, SENT, BYTES, STALE, HASHES, CHANCE, PARTITIONS, WAITING)

_CLOCKS = re.compile(
    r"log\[\d+\]\.(time|milliseconds)|dpdau_http_request_duration_seconds_(sum|bucket).*"
    r"|header retry-after|body\.retry_after"
)
"""What the machine's clock says, and no data: that it is there is compared, and not what it is."""

_NAME = re.compile(r"(?<![\w.])[0-9a-f]{16}(?!\w)")
"""Requests and receipts have names that are drawn by chance."""


@dataclass(frozen=True)
class Difference:
    """One field of an answer that is not the same in both worlds."""

    of: str
    field: str
    values: tuple[Any, Any]


def differences(one: World, other: World, allowed: Sequence[May]) -> tuple[list[Difference], set[May]]:
    """Every field that is not alike, and none of these lets differ; and which of them were needed."""
    pairs = list(zip(_renamed(one.said), _renamed(other.said), strict=True))
    found, needed = list[Difference](), set[May]()
    for here, there in pairs:
        unlike = list(_unlike(here, there))
        fields = {each.field for each in unlike}
        letting = {each: [may for may in allowed if _lets(may, each, fields)] for each in unlike}
        has_other_body = any(each.field.startswith(("body", "dpdau")) for each in unlike)
        needed.update(may for mays in letting.values() for may in mays)
        found += [
            each
            for each, mays in letting.items()
            if not mays and not (has_other_body and re.fullmatch(_LENGTHS, each.field))
        ]
    return found, needed


def _lets(may: May, difference: Difference, unlike: Set[str]) -> bool:
    is_named = difference.of.startswith(may.of) and re.fullmatch(may.fields, difference.field)
    return bool(is_named) and (may.beside is None or may.beside in unlike)


def _unlike(here: Said, there: Said) -> Iterator[Difference]:
    if here.of != there.of:
        yield Difference(here.of, "what was asked", (here.of, there.of))
    orders = (
        [name for name in here.fields if name in there.fields],
        [name for name in there.fields if name in here.fields],
    )
    if orders[0] != orders[1]:
        yield Difference(here.of, "the order", orders)
    for name in {**here.fields, **there.fields}:
        values = here.fields.get(name, _MISSING), there.fields.get(name, _MISSING)
        if values[0] != values[1]:
            yield Difference(here.of, name, values)


def _renamed(said: Sequence[Said]) -> Iterator[Said]:
    """All that is not there for her events alone, with names by the order in which they first came."""
    names: dict[str, str] = {}

    def renamed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(renamed, value))
        if not isinstance(value, str):
            return value
        return _NAME.sub(lambda found: names.setdefault(found[0], f"name {len(names)}"), value)

    def comparable(name: str, value: Any) -> Any:
        if _CLOCKS.fullmatch(name):
            return ""
        return value if name.startswith("body.survivors") else renamed(value)  # files of the log have such names too

    for each in said:
        if not each.hers:
            yield Said(each.of, {name: comparable(name, value) for name, value in each.fields.items()})


# --- The worlds --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Lives a world: `world("among", chapters, setting=...)`; each one once."""

    @cache
    def live(her: str, chapters: int = len(CHAPTERS), **settings: Any) -> World:
        return lived(tmp_path_factory.mktemp(her) / "store", Course(her, settings), CHAPTERS[:chapters])

    return live


def require_alike(one: World, other: World, allowed: Sequence[May]) -> None:
    """Nothing differs but what may, and all that may does."""
    found, needed = differences(one, other, allowed)
    assert found == []
    assert [may.why for may in allowed if may.always and may not in needed] == []


def survivors(world: World) -> list[str]:
    """In which files receipts have named somebody."""
    return [
        value
        for said in world.said
        for name, value in said.fields.items()
        if name.startswith("body.survivors[") and name.endswith(".file")
    ]


def stale_days(world: World) -> list[int]:
    """How many days each look at /status has seen that are to be built anew."""
    return [said.fields["body.behind.days"] for said in world.said if "body.behind.days" in said.fields]


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["touched", "all"])
def test_rows_of_one_user_among_others_change_nothing_but_what_privacy_allows(world: Any, mark: str) -> None:
    there, absent = world("among", erasure_mark=mark), world("absent", erasure_mark=mark)
    require_alike(there, absent, ALLOWED)
    numbers = [[release.noisy_value for release in each.store.accountant.releases()] for each in (there, absent)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 37 + 8 + 31
    assert len(survivors(there)) > len(survivors(absent)), "others hand in again what was erased, too"
    assert {name.partition("/")[0] for name in survivors(there)} == {"inbox"}  # a receipt seals before it looks
    once_applied = [stale_days(each)[2] for each in (there, absent)]
    assert (once_applied[0] == once_applied[1]) == (mark == "all"), "what ERASURE_MARK is for"


@pytest.mark.slow
def test_requests_of_one_user_alone_change_batches_and_bytes_besides_and_nothing_else(world: Any) -> None:
    there, absent = world("alone", erasure_mark="touched"), world("absent", erasure_mark="touched")
    allowed = [each for each in ALLOWED if each not in (PARSED, SENT)]
    require_alike(there, absent, [*allowed, BATCHES])
    assert sum(each.hers for each in there.said) == len(there.said) - len(absent.said) > 0


def test_before_anybody_is_erased_nothing_but_ingest_differs(world: Any) -> None:
    there, absent = world("among", 2), world("absent", 2)
    require_alike(there, absent, (TIMES, PARSED, SHARES, SENT, BYTES, STALE, CHANCE))
    day = ON_TIME[0]
    kept = [
        sum(
            len(each.store.state.activity.read(*place))
            for place in each.store.state.activity.stored()
            if place[0] == day
        )
        for each in (there, absent)
    ]
    assert kept[0] > kept[1], "she is there, and in the other world she is not"


def test_exact_counts_of_events_would_tell(world: Any) -> None:
    """The comparison can fail."""
    there, absent = (world(her, 1, metrics_counts="exact") for her in ("among", "absent"))
    found, _ = differences(there, absent, ALLOWED)
    assert {each.field for each in found} == {"dpdau_events_accepted_total"}


def test_every_route_of_the_document_is_asked(world: Any) -> None:
    asked = world("absent", 2).asked
    documented = {
        (method, path) for path, of_path in routes(Settings()).openapi()["paths"].items() for method in of_path
    }
    assert documented - asked == set()
