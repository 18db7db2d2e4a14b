"""What is said of a number that is not published, held against what a release does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.budget.forecast import PlannedRelease, coming
from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.budget.prospects import prospect
from dpdau_assets.core.dates import days_between, days_of_epoch, epoch_of
from dpdau_assets.core.erasure.retention import purge
from dpdau_assets.core.errors import BudgetRefused, DpdauError, NotPublished, Refused
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.admission import require_admitted, require_readable
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.reporting.answers import latest_release
from dpdau_assets.core.settings import Metric
from dpdau_tests.conftest import FixedClock, prepare, put
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.stores import DAYS as MONTH
from dpdau_tests.support.stores import a_month_restated
from resources.ledger_sql.backup import restore_transaction
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedgerReader
from resources.store import ledger_url

START = date(2025, 1, 1)
FIRST_MAU = date(2025, 1, 30)
BUILT = days_between(START, date(2025, 4, 10))

MakeStore = Callable[..., Store]


def at(day: date, store: Store) -> Store:
    return replace(store, clock=FixedClock(day))


def under(store: Store, **changes: object) -> Store:
    """The store with other settings."""
    return replace(store, settings=replace(store.settings, **changes))


def close(metric: Metric, month: date, store: Store) -> None:
    """Close a month as a restore does that may have lost numbers of it."""
    with restore_transaction(Database(ledger_url(store.settings), SECRET)) as transaction:
        transaction.close(metric, month, store.clock.today())


def refusal_of(metric: Metric, day: date, store: Store, revision: int | None = None) -> NotPublished:
    with pytest.raises(NotPublished) as raised:
        latest_release(metric, day, store.settings.window_days(metric), revision, store)
    assert raised.value.exit_code == 3
    return raised.value


def built_by(today: date, make_store: MakeStore, name: str = "store", **settings: object) -> Store:
    """A hundred days of state on this day, made once for all of them."""
    return at(today, make_store(name, today=BUILT[-1] + timedelta(days=2), recipe=built, **settings))


def built(store: Store) -> None:
    """A hundred days of state, and nothing published."""
    put(store, [("somebody", day) for day in BUILT[::7]])
    prepare(store, BUILT)


# --- One after the other -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "day", "why", "says"),
    [
        ("dau", date(2024, 12, 31), "before_start", "it lies before START_DATE, 2025-01-01. Ask from 2025-01-01 on."),
        ("mau", date(2024, 12, 31), "before_start", "it lies before START_DATE, 2025-01-01. Ask from 2025-01-30 on."),
        (
            "mau",
            date(2025, 1, 29),
            "before_first_window",
            "days before START_DATE, 2025-01-01. Ask from 2025-01-30 on.",
        ),
    ],
)
def test_a_day_before_the_data_is_said_never_to_get_a_number_with_the_first_that_does(
    make_store: MakeStore, metric: Metric, day: date, why: str, says: str
) -> None:
    error = refusal_of(metric, day, make_store(today=date(2025, 3, 1)))
    assert (error.fields["never"], error.fields["why"]) == (True, why)
    assert "never will be" in error.reason and str(error).endswith(says)
    assert "publish_" not in str(error)


@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_a_day_that_no_calendar_reaches_is_said_to_be_not_over(make_store: MakeStore, metric: Metric) -> None:
    error = refusal_of(metric, date(9999, 12, 31), make_store(today=date(2025, 3, 1)))
    assert (error.fields["never"], error.fields["why"]) == (False, "not_due")
    assert "9999-12-31 is not over" in error.reason


def test_a_day_of_a_salt_epoch_whose_key_was_lost_never_comes_and_the_day_after_it_does(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 9, 1))
    first, last = days_of_epoch(epoch_of(date(2025, 5, 1), 90), 90, 1)
    with restore_transaction(Database(ledger_url(store.settings), SECRET)) as transaction:
        transaction.lose_epochs({epoch_of(first, 90)})
    for day in (first, last):
        error = refusal_of("dau", day, store)
        assert (error.fields["never"], error.fields["why"]) == (True, "lost_epoch")
        assert f"Ask from {last + timedelta(days=1)} on." in str(error)
        with pytest.raises(Refused, match="was lost"):
            prepare(store, [day])
    assert refusal_of("dau", last + timedelta(days=1), store).fields["never"] is False


def test_after_a_restore_the_day_that_mau_goes_on_with_is_named_and_none_that_never_comes(
    make_store: MakeStore,
) -> None:
    store = built_by(date(2025, 4, 11), make_store)
    publish("mau", FIRST_MAU, store)
    close("mau", date(2025, 1, 1), store)
    close("mau", date(2025, 2, 1), store)
    error = refusal_of("mau", date(2025, 4, 1), store)
    assert error.fields["never"] is False and "makes 2025-03-30 next" in str(error)
    assert refusal_of("mau", date(2025, 3, 29), store).fields["never"] is True


def test_a_day_of_a_restated_month_and_its_restatement_never_come(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 2, 9), recipe=skipping)
    for revision in (None, 0, 1):
        error = refusal_of("dau", date(2025, 1, 2), store, revision)
        assert (error.fields["never"], error.fields["why"]) == (True, "restated")
        assert "2025-01 was restated without it" in error.reason


def skipping(store: Store) -> None:
    """Two days of January and those of February that let it be restated."""
    days = [date(2025, 1, 1), date(2025, 1, 3), *days_between(date(2025, 2, 1), date(2025, 2, 6))]
    prepare(store, days)
    for day in days:
        publish("dau", day, store)
    restate(START, store)


def test_a_day_before_the_series_of_mau_never_comes_and_one_after_it_names_the_next(make_store: MakeStore) -> None:
    store = built_by(date(2025, 3, 20), make_store)
    publish("mau", date(2025, 2, 10), store)
    before, after = refusal_of("mau", date(2025, 2, 9), store), refusal_of("mau", date(2025, 2, 20), store)
    assert (before.fields["never"], before.fields["why"]) == (True, "before_series")
    assert "begins with 2025-02-10, which is fixed for ever" in before.reason
    assert (after.fields["never"], after.fields["why"]) == (False, "to_come") and "2025-02-11 next" in after.remedy


def test_a_day_between_two_series_never_comes_from_the_change_of_settings_on(make_store: MakeStore) -> None:
    store = built_by(date(2025, 4, 9), make_store)
    publish("mau", date(2025, 2, 10), store)
    changed = under(store, mau_budget_total=Fraction(3))
    gap = refusal_of("mau", date(2025, 2, 20), changed)
    assert (gap.fields["never"], gap.fields["why"]) == (True, "no_budget")
    assert "as things stand" in gap.reason and "go on with 2025-03-30" in gap.remedy
    assert (gap.fields["month"], gap.fields["next_day"]) == ("2025-01", "2025-03-30")
    assert 0 < gap.fields["spent"] < gap.fields["charged"] == pytest.approx(3.5, abs=1e-3)
    publish("mau", date(2025, 3, 30), changed)
    for now in (changed, store):
        gap = refusal_of("mau", date(2025, 2, 20), now)
        assert (gap.fields["never"], gap.fields["why"]) == (True, "between_series")
        assert "Ask from 2025-03-30 on" in gap.remedy


def ten_fit(store: Store) -> None:
    """A cap of January that takes ten numbers of DAU, and these ten."""
    days = days_between(START, date(2025, 1, 12))
    put(store, [("somebody", START)])
    prepare(store, days)
    for day in days[:10]:
        publish("dau", day, store)


def test_a_number_that_the_budget_refuses_has_the_fields_of_the_refusal_what_is_spent_and_the_next_day(
    make_store: MakeStore,
) -> None:
    pure = {"dau_mechanism": "laplace", "epsilon_dau": Fraction(3, 10), "restatements_per_month": 0}
    store = make_store(today=date(2025, 2, 9), recipe=ten_fit, **pure)
    error = refusal_of("dau", date(2025, 1, 12), store)
    with pytest.raises(BudgetRefused) as refused:
        publish("dau", date(2025, 1, 12), store)
    assert refused.value.fields.items() <= error.fields.items()
    assert (error.fields["never"], error.fields["why"], error.fields["next_day"]) == (True, "no_budget", "2025-02-01")
    assert (
        error.fields["spent"] == pytest.approx(3.0) and "cap" not in refusal_of("dau", date(2025, 2, 8), store).fields
    )
    assert refusal_of("dau", date(2025, 1, 12), store, 1).fields["why"] == "not_restated"


def test_a_month_that_a_restore_has_closed_gets_no_number_until_it_is_opened_on_the_record(
    make_store: MakeStore,
) -> None:
    store = built_by(date(2025, 4, 9), make_store)
    for metric in ("dau", "mau"):
        close(metric, date(2025, 2, 1), store)
    asked: list[tuple[Metric, date]] = [("dau", date(2025, 2, 3)), ("mau", date(2025, 3, 3))]
    for metric, day in asked:
        error = refusal_of(metric, day, store)
        assert (error.fields["never"], error.fields["why"]) == (True, "closed")
        assert "2025-02, of which numbers may have been lost in a restore" in error.reason
        reset_budget(metric, date(2025, 2, 1), Fraction(4), "Ada", "a test", store)
        assert refusal_of(metric, day, store).fields["why"] == "to_come"


def test_a_day_past_retention_never_comes(make_store: MakeStore) -> None:
    store = built_by(date(2025, 4, 9), make_store)
    store.accountant.purge_through(date(2025, 1, 20))
    dau, mau = refusal_of("dau", date(2025, 1, 20), store), refusal_of("mau", date(2025, 2, 18), store)
    assert dau.fields["why"] == mau.fields["why"] == "past_retention"
    assert "Ask from 2025-01-21 on" in dau.remedy and "Ask from 2025-02-19 on" in mau.remedy
    assert refusal_of("mau", date(2025, 2, 19), store).fields["why"] == "to_come"


def test_a_day_to_come_says_when_it_is_due_and_one_that_is_due_names_its_asset(make_store: MakeStore) -> None:
    store = built_by(date(2025, 3, 1), make_store)
    for day, due in (
        (date(2025, 3, 1), "2025-03-03"),
        (date(2025, 2, 28), "2025-03-02"),
        (date(2027, 1, 1), "2027-01-03"),
    ):
        for metric in ("dau", "mau"):
            error = refusal_of(metric, day, store)
            assert (error.fields["never"], error.fields["why"], error.fields["due"]) == (False, "not_due", due)
            assert f"due on {due}" in str(error) and f"{metric}_release" in error.remedy
    error = refusal_of("dau", date(2025, 2, 27), store)
    assert (error.fields["why"], "due" in error.fields) == ("to_come", False) and "dau_release" in error.remedy


def test_a_restatement_that_comes_says_when_and_one_that_never_does_why(make_store: MakeStore) -> None:
    store = built_by(date(2025, 2, 3), make_store)
    publish("dau", date(2025, 1, 5), store)
    error = refusal_of("dau", date(2025, 1, 5), store, 1)
    assert (error.fields["never"], error.fields["due"]) == (False, "2025-02-05") and "dau_restatement" in error.remedy
    assert refusal_of("dau", date(2025, 1, 5), at(date(2025, 2, 9), store), 1).fields["why"] == "to_come"
    assert refusal_of("dau", date(2024, 12, 5), store, 1).fields["why"] == "before_start"
    without = make_store("without", today=date(2025, 2, 3), restatements_per_month=0)
    assert refusal_of("dau", date(2025, 1, 5), without, 1).fields["why"] == "not_restated"
    for metric, window, revision in (("mau", 30, 1), ("dau", 1, 2), ("mau", 7, None)):
        with pytest.raises(NotPublished, match="Only the configured window") as raised:
            latest_release(metric, date(2025, 1, 30), window, revision, store)
        assert raised.value.fields["never"] is True


def test_while_a_restored_ledger_waits_for_erasures_a_day_is_neither_promised_nor_given_up(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = built_by(date(2025, 4, 9), make_store)
    monkeypatch.setattr(SqlLedgerReader, "awaits_erasures", lambda self: True)
    error = refusal_of("dau", date(2025, 2, 3), store)
    assert (error.fields["never"], error.fields["why"]) == (False, "awaits_erasures") and "reopen" in error.remedy


def test_where_nothing_says_how_to_count_the_answer_names_what_to_set(make_store: MakeStore) -> None:
    store = make_store(today=date(2025, 4, 9), sketch_impl="theta")
    error = refusal_of("dau", date(2025, 2, 3), store)
    assert (error.fields["never"], error.fields["why"]) == (False, "settings") and "DAU_THETA0" in str(error)


def test_what_is_said_of_a_missing_number_is_the_same_with_and_without_any_one_user(make_store: MakeStore) -> None:
    """Every day of a store with all kinds of them is asked for, and answered word by word."""
    said = []
    for name in ("with", "without"):
        store = make_store(name, today=date(2025, 2, 9), recipe=a_month_restated)
        if name == "with":
            put(store, [("she", day) for day in MONTH])
        days = days_between(date(2024, 12, 30), date(2025, 3, 9))[::4]
        keys = [
            ReleaseKey(metric, store.settings.window_days(metric), day) for metric in ("dau", "mau") for day in days
        ]
        said.append([prospect(key, store) for key in keys if store.accountant.release(key) is None])
    assert said[0] == said[1] and {prospect_of_day.why for prospect_of_day in said[0]} >= {
        "before_start",
        "before_first_window",
        "not_due",
    }


# --- Against the real thing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """What happened to a store, in this order: none of it is refused for good reasons alone."""

    dau: frozenset[date]
    mau_from: date | None
    mau_days: int
    changed: bool
    second_days: int
    restated: bool
    closed: tuple[Metric, date] | None
    kept_days: int | None
    today: date


DAYS = st.sampled_from(BUILT)
HISTORIES = st.builds(
    History,
    dau=st.frozensets(DAYS, max_size=4),
    mau_from=st.none() | st.dates(FIRST_MAU, date(2025, 3, 5)),
    mau_days=st.integers(1, 5),
    changed=st.booleans(),
    second_days=st.integers(0, 2),
    restated=st.booleans(),
    closed=st.none()
    | st.tuples(st.sampled_from(["dau", "mau"]), st.sampled_from([date(2025, n, 1) for n in (1, 2, 3)])),
    kept_days=st.none() | st.integers(36, 60),
    today=st.dates(date(2025, 3, 10), date(2025, 4, 11)),
)
ASKED = st.lists(
    st.tuples(st.sampled_from(["dau", "mau"]), st.dates(date(2024, 12, 30), date(2025, 4, 14))),
    min_size=15,
    max_size=15,
)


def lived(history: History, store: Store) -> Store:
    """The store after it; what the contract refuses has not happened."""
    for day in sorted(history.dau):
        attempt(lambda day=day: publish("dau", day, store))
    if history.restated:
        attempt(lambda: publish("dau", date(2025, 2, 3), store))
        attempt(lambda: restate(START, store))
    if history.mau_from:
        for n in range(history.mau_days):
            attempt(lambda n=n: publish("mau", history.mau_from + timedelta(days=n), store))
    if history.changed:
        store = under(store, mau_budget_total=Fraction(3))
        for n in range(history.second_days):
            attempt(lambda n=n: publish("mau", date(2025, 3, 30) + timedelta(days=n), store))
    if history.closed:
        close(*history.closed, store)
    if history.kept_days:
        kept = under(store, retention_days=history.kept_days)
        attempt(lambda: purge(kept))
    return store


def attempt(step: Callable[[], object]) -> bool:
    try:
        step()
    except Refused:
        return False
    return True


numbers = count()


@pytest.mark.also_long
@settings(
    max_examples=at_length(test=6, ci=60, soak=400),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=HISTORIES, asked=ASKED)
def test_what_is_said_never_to_come_is_refused_by_a_release_and_what_is_said_to_come_is_not(
    make_store: MakeStore, history: History, asked: list[tuple[Metric, date]]
) -> None:
    store = lived(history, built_by(history.today, make_store, f"store {next(numbers)}"))
    last = max((release.key.day for release in store.accountant.releases("mau")), default=None)
    for metric, day in asked:
        key = ReleaseKey(metric, store.settings.window_days(metric), day)
        if store.accountant.release(key):
            continue
        said = prospect(key, store)
        is_over = day < store.clock.today()
        if said.never:
            assert is_refused(key, at(date(2025, 5, 1), store)), (key, said)
        elif not is_over:
            assert is_refused(key, store) and said.due, (key, said)
        elif metric == "mau" and last and "MAU follow one another" in said.remedy and day > last + timedelta(days=1):
            assert is_made_in_order(key, store), (key, said)
        else:
            assert not is_refused(key, store), (key, said)


def is_refused(key: ReleaseKey, store: Store) -> bool:
    """By a release, before it reads or seals anything."""
    try:
        with store.accountant.snapshot() as ledger:
            require_readable(key, ledger, store.settings, store.clock)
            require_admitted(key, ledger, store.settings)
    except DpdauError:
        return True
    return False


def is_made_in_order(key: ReleaseKey, store: Store) -> bool:
    """Or, of a stream that was changed, at once; of others by a walk over all days before it."""
    walked = [number for number in coming(store.accountant, store.settings, key.day) if number.release.metric == "mau"]
    days = {number.release.day for number in walked if isinstance(number, PlannedRelease)}
    return key.day in days or not is_refused(key, store)


def test_days_that_are_said_to_come_after_others_come_when_those_are_there(make_store: MakeStore) -> None:
    store = built_by(date(2025, 3, 20), make_store)
    publish("mau", date(2025, 2, 26), store)
    assert refusal_of("mau", date(2025, 3, 3), store).fields["never"] is False
    for day in days_between(date(2025, 2, 27), date(2025, 3, 3)):
        publish("mau", day, store)
