"""From the rows of one request to what is made durable: against the reference that files are held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.dates import UNIX_EPOCH, days_of_epoch, epoch_of, epochs_of_day
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.events import BAD_OP, NO_DAY, NO_USER, TOO_LATE, TOO_LONG, UNPARSABLE, row_of_object
from dpdau_assets.core.identity import epoch_key_commitment, user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.arrivals import LONGEST_ID, LONGEST_METADATA, Keying, sorted_out
from dpdau_assets.core.publication.ingest import RowScan
from dpdau_tests.conftest import FixedClock

Make = Callable[..., Store]
TODAY = date(2025, 3, 20)
FIRST, LAST = date(2025, 1, 1), TODAY + timedelta(days=1)

EVENTS = st.fixed_dictionaries(
    {"user_id": st.sampled_from(["", "a", "b", "c", None, 7, 7.5])},
    optional={
        "op": st.sampled_from(["+", "-", "x", None]),
        "day": st.dates(date(2024, 12, 28), date(2025, 3, 24)).map(str),
        "ts": st.sampled_from(["2025-02-01T10:00:00Z", 1735689600, "never"]),
        "metadata": st.sampled_from([None, {}, {"days": ["2025-02-01"]}, {"days": []}, "text"]),
    },
)


@pytest.fixture
def store(make_store: Make) -> Store:
    return make_store(today=TODAY)


@given(st.lists(st.one_of(EVENTS, st.none(), st.integers(), st.text(max_size=3)), max_size=12))
def test_rows_of_a_request_are_sorted_out_as_rows_of_a_file_are(keying: Keying, values: list[object]) -> None:
    rows = sorted_out(values, keying.limits)
    scan = RowScan([("f", place, row_of_object(value)) for place, value in enumerate(values)], keying.limits)
    assert rows.accepted == scan.accepted
    assert [(row.line, row.reason) for row in scan.rejected()] == list(rows.rejected)
    assert list(scan.removals()) == list(rows.removals)
    assert sorted({day for _, day in rows.users}) == scan.days()
    assert sum(rows.by_reason.values()) == len(rows.rejected)


@pytest.fixture(scope="module")
def keying(tmp_path_factory: pytest.TempPathFactory) -> Keying:
    from dpdau_tests.conftest import opened

    return Keying(opened(tmp_path_factory.mktemp("arrivals"), TODAY))


def test_users_are_keyed_under_every_epoch_that_reaches_their_day(store: Store) -> None:
    keying = Keying(store)
    last = days_of_epoch(epoch_of(FIRST, 90), 90, 30)[1]
    events = [{"user_id": user, "day": str(day)} for user in ("a", "b", "a") for day in (FIRST, last)]
    arrivals = keying.arrivals(sorted_out(events, keying.limits), "0123456789abcdef")
    there = set(zip(arrivals.days.tolist(), arrivals.epochs.tolist(), arrivals.keys.tolist(), strict=True))
    reached = [(day, epoch) for day in (FIRST, last) for epoch in epochs_of_day(day, 90, 30)]
    secrets = store.state.salts.epoch_keys({epoch for _, epoch in reached})
    assert there == {
        ((day - UNIX_EPOCH).days, epoch, user_key(secrets[epoch].secret, user))
        for user in "ab"
        for day, epoch in reached
    }
    assert len(there) == len(arrivals.keys) == 2 * len(reached) == 6
    assert arrivals.commitments == {epoch: epoch_key_commitment(key) for epoch, key in secrets.items()}


def test_an_id_over_http_may_be_a_number_and_is_spelled_as_the_store_says(store: Store) -> None:
    limits = replace(Keying(store).limits, normalize=("nfc", "trim", "casefold"))
    ids = [101, "101", 101.0, " Jose\u0301", "JOS\u00c9 ", True, 1.5, " "]
    rows = sorted_out([{"user_id": user_id, "day": str(FIRST)} for user_id in ids], limits)
    assert [user_id for user_id, _ in rows.users] == ["101", "101", "101", "jos\u00e9", "jos\u00e9"]
    assert rows.rejected == tuple((place, NO_USER) for place in (5, 6, 7))
    removed = sorted_out([{"user_id": " ANNA", "op": "-"}], limits).removals
    assert [event.user_id for event in removed] == ["anna"]


def test_bad_rows_are_told_by_their_line(store: Store) -> None:
    keying = Keying(store)
    values: list[object] = [None, {"user_id": "a", "day": str(FIRST)}, {"user_id": "a"}, {"user_id": "a", "op": "x"}]
    arrivals = keying.arrivals(sorted_out(values, keying.limits), "0123456789abcdef")
    assert arrivals.rejected == ((1, UNPARSABLE), (3, NO_DAY), (4, BAD_OP))


@pytest.mark.parametrize(
    ("value", "is_bad"),
    [
        ({"user_id": "x" * LONGEST_ID}, False),
        ({"user_id": "x" * (LONGEST_ID + 1)}, True),
        ({"user_id": 10 ** (LONGEST_ID - 1)}, False),
        ({"user_id": 10**LONGEST_ID}, True),
        ({"user_id": "a", "metadata": {"note": "x" * (LONGEST_METADATA - 10)}}, False),
        ({"user_id": "a", "metadata": {"note": "x" * LONGEST_METADATA}}, True),
        ({"user_id": "a", "metadata": {"x" * LONGEST_METADATA: 1}}, True),
        ({"user_id": "a", "metadata": [[1]] * LONGEST_METADATA}, True),
    ],
)
def test_what_is_longer_than_a_request_may_carry_is_a_bad_row(
    value: dict[str, object], is_bad: bool, store: Store
) -> None:
    (said,) = sorted_out([{"day": str(FIRST), **value}], Keying(store).limits).rejected or [(0, "")]
    assert (said[1] == TOO_LONG) == is_bad


def test_a_keying_that_is_made_anew_knows_the_new_day_and_forgets_what_was_shredded(store: Store) -> None:
    keying = Keying(store)
    events = [{"user_id": "a", "day": str(LAST + timedelta(days=1))}]
    assert sorted_out(events, keying.limits).rejected == ((0, TOO_LATE),)
    later = replace(store, clock=FixedClock(TODAY + timedelta(days=1)))
    assert sorted_out(events, Keying(later, keying).limits).accepted == 1
    old = sorted_out([{"user_id": "a", "day": str(FIRST)}], keying.limits)
    keying.arrivals(old, "0123456789abcdef")
    store.state.salts.shred_through(epoch_of(FIRST, 90))
    with pytest.raises(Refused, match="shredded"):
        Keying(store, keying).arrivals(old, "0123456789abcdef")
