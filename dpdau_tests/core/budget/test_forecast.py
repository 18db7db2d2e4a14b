"""What is foreseen from where a ledger stands, held against the calendar and against releases entered one by one."""

from __future__ import annotations

import json
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dpdau_assets.core.budget.forecast import Forecast, MonthForecast, forecast
from dpdau_assets.core.budget.planning import enter, plan
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.facts import Override, Release, ReleaseKey
from dpdau_assets.core.privacy.accounting import mu2
from dpdau_assets.core.privacy.mechanisms import half_width_95, noise_std
from dpdau_assets.core.privacy.schedule import first_refusal, mechanism_for
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.restored import Restore
from dpdau_assets.core.settings import Metric, Settings
from dpdau_tests.conftest import SECRET
from dpdau_tests.support.lengths import LENGTH, at_length
from resources.ledger_sql.backup import restore_transaction
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedger

START, FIRST_MAU = date(2025, 1, 1), date(2025, 1, 30)
JANUARY, FEBRUARY, MARCH, APRIL = (date(2025, month, 1) for month in range(1, 5))


@pytest.fixture
def ledger() -> SqlLedger:
    return empty_ledger()


def empty_ledger() -> SqlLedger:
    return SqlLedger(Database("sqlite://", SECRET))


def release(ledger: SqlLedger, settings: Settings, metric: Metric, days: list[date], revision: int = 0) -> None:
    """Enter these numbers as a release does; what the numbers are does not matter here."""
    with ledger.transaction() as transaction:
        for day in days:
            key = ReleaseKey(metric, settings.window_days(metric), day, revision)
            planned = plan(key, transaction, settings)
            enter(planned, transaction)
            transaction.store(Release(key, planned.run.name, planned.run.mechanism.name, 0, 1, "set", "", True, ""))


def row(ahead: Forecast, metric: Metric, month: date) -> MonthForecast:
    (month_row,) = [month_row for month_row in ahead.months if (month_row.metric, month_row.month) == (metric, month)]
    return month_row


# --- What will come ----------------------------------------------------------------------------------------------


def test_each_month_has_its_numbers_their_slots_and_their_cost(ledger: SqlLedger) -> None:
    ahead = forecast(ledger, Settings(), 3)
    assert not ahead.refused
    assert [(month_row.month, month_row.metric) for month_row in ahead.months] == [
        (month, metric) for month in (JANUARY, FEBRUARY, MARCH) for metric in ("dau", "mau")
    ]
    january, march = row(ahead, "dau", JANUARY), row(ahead, "mau", MARCH)
    assert (january.first_numbers, january.restatements, january.refused, january.published) == (31, 31, 0, 0)
    assert (january.first_due, january.last_due) == (date(2025, 1, 3), date(2025, 2, 5))
    assert january.mu2 == mu2(mechanism_for(Settings(), "dau", JANUARY))  # type: ignore[arg-type]
    assert (march.first_numbers, march.restatements) == (60, 0)
    assert (march.first_due, march.last_due) == (date(2025, 3, 3), date(2025, 5, 1))
    assert [row(ahead, "mau", month).first_numbers for month in (JANUARY, FEBRUARY)] == [31, 57]


def test_what_is_charged_is_within_half_a_percent_of_the_cap_and_the_rest_is_headroom(ledger: SqlLedger) -> None:
    for month_row in forecast(ledger, Settings(), 12).months:
        assert 0.995 * month_row.cap <= month_row.charged <= month_row.cap
        assert month_row.charged + month_row.headroom == pytest.approx(month_row.cap)
        assert month_row.spent <= month_row.charged


def test_the_error_shown_is_that_of_the_last_number_to_come(ledger: SqlLedger) -> None:
    ahead = forecast(ledger, Settings(), 2)
    shared, stream = (mechanism_for(Settings(), metric, JANUARY) for metric in ("dau", "mau"))
    january, mau = row(ahead, "dau", JANUARY), row(ahead, "mau", JANUARY)
    assert (january.std, january.half_width_95) == (noise_std(shared), half_width_95(shared))
    assert (mau.std, mau.half_width_95) == (noise_std(stream, 31), half_width_95(stream, 31))


def test_publication_goes_on_after_the_last_published_day_of_each_metric(ledger: SqlLedger) -> None:
    settings = Settings()
    release(ledger, settings, "dau", days_between(START, date(2025, 2, 2)))
    release(ledger, settings, "mau", days_between(FIRST_MAU, date(2025, 2, 10)))
    ahead = forecast(ledger, settings, 1)
    assert [(month_row.month, month_row.metric) for month_row in ahead.months] == [
        (month, metric) for month in (JANUARY, FEBRUARY) for metric in ("dau", "mau")
    ]
    january, february = row(ahead, "dau", JANUARY), row(ahead, "dau", FEBRUARY)
    assert (january.published, january.first_numbers, january.restatements) == (31, 0, 31)
    assert january.charged_now == january.charged == row(forecast(empty_ledger(), settings, 1), "dau", JANUARY).charged
    assert (february.published, february.first_numbers, february.first_due) == (2, 26, date(2025, 2, 5))
    mau = row(ahead, "mau", JANUARY)
    assert (mau.published, mau.first_numbers, mau.first_due) == (12, 19, date(2025, 2, 13))


def test_a_first_day_is_where_an_empty_ledger_begins(ledger: SqlLedger) -> None:
    ahead = forecast(ledger, Settings(), 1, date(2025, 3, 20))
    assert [(month_row.month, month_row.metric) for month_row in ahead.months] == [
        (FEBRUARY, "mau"),
        (MARCH, "dau"),
        (MARCH, "mau"),
    ]
    march = row(ahead, "dau", MARCH)
    assert (march.first_numbers, march.restatements, march.first_due) == (12, 12, date(2025, 3, 22))
    assert row(ahead, "mau", FEBRUARY).first_numbers == 10


def test_a_living_stream_that_is_not_to_go_on_before_a_later_day_is_refused_the_gap(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "mau", [FIRST_MAU])
    ahead = forecast(ledger, Settings(), 1, date(2025, 3, 1))
    assert ahead.refused[0].release.day == date(2025, 3, 1)
    assert "does not follow" in ahead.refused[0].error.reason


def test_a_month_is_restated_on_the_day_that_was_fixed_with_its_first_number(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "dau", [START])
    ahead = forecast(ledger, Settings(restatement_day=20), 2)
    assert row(ahead, "dau", JANUARY).last_due == date(2025, 2, 5)
    assert row(ahead, "dau", FEBRUARY).last_due == date(2025, 3, 20)


def test_a_month_that_was_priced_without_a_restatement_gets_none(ledger: SqlLedger) -> None:
    release(ledger, Settings(restatements_per_month=0), "dau", [START])
    ahead = forecast(ledger, Settings(), 2)
    assert [row(ahead, "dau", month).restatements for month in (JANUARY, FEBRUARY)] == [0, 28]
    assert not ahead.refused


def test_a_restated_month_is_not_restated_again(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "dau", days_between(START, date(2025, 2, 3)))
    release(ledger, Settings(), "dau", days_between(START, date(2025, 1, 31)), revision=1)
    ahead = forecast(ledger, Settings(), 1)
    assert {month_row.month for month_row in ahead.months if month_row.metric == "dau"} == {FEBRUARY}


# --- What will be refused ----------------------------------------------------------------------------------------


@given(
    start=st.dates(date(2023, 11, 1), date(2025, 4, 1)),
    mechanism=st.sampled_from(["laplace", "gaussian"]),
    cap=st.integers(2, 40).map(lambda tenths: Fraction(tenths, 10)),
    each=st.sampled_from([Fraction(1, 20), Fraction(1, 10), Fraction(3, 10)]),
    window_days=st.sampled_from([1, 7, 30, 45]),
    restatements=st.sampled_from([0, 1]),
)
@examples(derandomize=LENGTH != "soak", max_examples=at_length(test=6, ci=30, soak=200), deadline=None)
@pytest.mark.also_long
def test_the_first_refusal_from_an_empty_ledger_is_the_calendars(
    start: date, mechanism: str, cap: Fraction, each: Fraction, window_days: int, restatements: int
) -> None:
    settings = Settings(
        start_date=start,
        dau_mechanism=mechanism,
        mau_mechanism=mechanism,
        dau_budget_total=cap,
        mau_budget_total=cap,
        epsilon_dau=each,
        epsilon_mau=each,
        mau_window_days=window_days,
        restatements_per_month=restatements,
    )
    ahead, expected = forecast(empty_ledger(), settings, 5), first_refusal(settings)
    if expected is None:
        assert not ahead.refused
        return
    first = ahead.refused[0]
    release, fields = first.release, first.error.fields
    assert isinstance(first.error, BudgetRefused)
    assert release.due_on == expected.due_on
    if release.metric == expected.metric:  # of two on one day either may be named
        assert (release.day, release.revision) == (expected.day, expected.revision)
        assert (fields["month"], fields["cap"]) == (f"{expected.month:%Y-%m}", expected.cap)
        assert fields["asked"] == pytest.approx(expected.asked)
        assert fields["charged"] == pytest.approx(expected.charged)


def test_the_days_after_a_refused_one_are_tried_all_the_same(ledger: SqlLedger) -> None:
    ahead = forecast(ledger, Settings(dau_mechanism="laplace", restatements_per_month=0), 2)
    assert [row(ahead, "dau", month).first_numbers for month in (JANUARY, FEBRUARY)] == [10, 10]
    assert [row(ahead, "dau", month).refused for month in (JANUARY, FEBRUARY)] == [21, 18]


def test_a_restatement_of_which_one_number_is_refused_makes_none_and_is_charged_nothing(ledger: SqlLedger) -> None:
    settings = Settings(dau_mechanism="laplace", epsilon_dau=Fraction(1, 10), dau_budget_total=Fraction(4))
    ahead = forecast(ledger, settings, 1)
    january = row(ahead, "dau", JANUARY)
    assert (january.first_numbers, january.restatements, january.refused) == (31, 0, 31)
    assert january.charged == pytest.approx(3.1)
    first = ahead.refused[0]
    assert (first.release.day, first.release.revision, first.numbers) == (date(2025, 1, 10), 1, 31)
    assert first.error.fields["charged"] == pytest.approx(4.0)


def test_a_refused_day_has_no_number_to_be_restated(ledger: SqlLedger) -> None:
    settings = Settings(dau_mechanism="gaussian", dau_budget_total=Fraction(1))
    ahead = forecast(ledger, settings, 1)
    numbers = row(ahead, "dau", JANUARY).first_numbers
    assert 0 < numbers < 31
    (restatement,) = [refused for refused in ahead.refused if refused.release.revision and refused.months == (JANUARY,)]
    assert restatement.numbers == numbers


def test_while_a_restored_ledger_waits_for_erasures_everything_is_refused() -> None:
    database = Database("sqlite://", SECRET)
    with restore_transaction(database) as transaction:
        transaction.note_restore(Restore(JANUARY, JANUARY, None))
    ahead = forecast(SqlLedger(database), Settings(), 1)
    assert not any(month_row.first_numbers for month_row in ahead.months)
    assert row(ahead, "dau", JANUARY).refused == 31


def test_a_month_that_a_restore_has_closed_is_refused_in_every_window_that_reads_it() -> None:
    database = Database("sqlite://", SECRET)
    with restore_transaction(database) as transaction:
        transaction.close("mau", FEBRUARY, FEBRUARY)
    ahead = forecast(SqlLedger(database), Settings(), 2, FEBRUARY)
    assert row(ahead, "mau", FEBRUARY).first_numbers == 0
    assert row(ahead, "mau", MARCH).first_due == date(2025, 4, 1)  # the window of 30 March is the first that does not
    assert row(ahead, "dau", FEBRUARY).first_numbers == 28


# --- Settings that change under a living ledger ------------------------------------------------------------------


def test_a_lower_cap_takes_hold_in_months_without_charges_only(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "dau", [START])
    ahead = forecast(ledger, Settings(dau_budget_total=Fraction(2)), 2)
    assert [row(ahead, "dau", month).cap for month in (JANUARY, FEBRUARY)] == [3.0, 2.0]
    assert row(ahead, "dau", JANUARY).mu2 == row(forecast(ledger, Settings(), 2), "dau", JANUARY).mu2
    assert not ahead.refused


def test_a_changed_cap_of_a_stream_begins_another_on_the_first_day_that_shares_no_month(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "mau", days_between(FIRST_MAU, date(2025, 2, 10)))
    changed = Settings(mau_budget_total=Fraction(3))
    ahead = forecast(ledger, changed, 3)
    first, last = ahead.refused[0], ahead.refused[-1]
    assert isinstance(first.error, BudgetRefused)
    assert first.release.day == date(2025, 2, 11)
    assert last.release.day + timedelta(days=1) == date.fromisoformat(str(first.error.fields["next_day"]))
    (stream,) = ahead.new_streams
    assert (stream.metric, stream.first_day, stream.months_charged_twice) == ("mau", date(2025, 3, 30), ())


def test_where_overrides_make_room_both_streams_are_charged_and_the_months_named(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "mau", days_between(FIRST_MAU, date(2025, 2, 10)))
    for month in (JANUARY, FEBRUARY):
        ledger.override(Override("cap", "an officer", "a test", START, "mau", month, Fraction(8)))
    ahead = forecast(ledger, Settings(mau_budget_total=Fraction(3)), 1)
    assert not ahead.refused
    (stream,) = ahead.new_streams
    assert (stream.first_day, stream.months_charged_twice) == (date(2025, 2, 11), (JANUARY, FEBRUARY))
    january = row(ahead, "mau", JANUARY)
    assert january.cap == 8.0
    assert january.charged > january.charged_now + 0.5


def test_another_mechanism_is_charged_on_top_of_what_the_stream_was(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "mau", [FIRST_MAU])
    ahead = forecast(ledger, Settings(mau_mechanism="gaussian", epsilon_mau=Fraction(3, 10)), 3)
    assert {refused.release.day for refused in ahead.refused} == set(days_between(date(2025, 1, 31), date(2025, 3, 1)))
    assert [row(ahead, "mau", month).first_numbers for month in (JANUARY, FEBRUARY, MARCH)] == [0, 28, 59]
    assert ahead.new_streams == ()


def test_what_was_foreseen_is_what_entering_the_releases_gives(ledger: SqlLedger) -> None:
    settings = Settings(mau_mechanism="gaussian")
    ahead = forecast(ledger, settings, 3)
    first = ahead.refused[0]
    release(ledger, settings, "mau", days_between(FIRST_MAU, first.release.day - timedelta(days=1)))
    with pytest.raises(BudgetRefused) as raised:
        release(ledger, settings, "mau", [first.release.day])
    assert raised.value.fields == first.error.fields
    assert forecast(ledger, settings, 1).refused[0].release == first.release


# --- What it leaves behind ---------------------------------------------------------------------------------------


def test_looking_ahead_leaves_the_ledger_as_it_was(ledger: SqlLedger) -> None:
    settings = Settings()
    release(ledger, settings, "dau", [START])
    before = ledger.releases(), ledger.mechanism_runs(), ledger.charges("dau", JANUARY)
    assert forecast(ledger, settings, 3) == forecast(ledger, settings, 3)
    assert (ledger.releases(), ledger.mechanism_runs(), ledger.charges("dau", JANUARY)) == before
    assert ledger.charges("dau", FEBRUARY) == ledger.charges("mau", JANUARY) == []


def test_as_json_it_has_plain_values_and_names_months_as_months(ledger: SqlLedger) -> None:
    release(ledger, Settings(), "mau", [FIRST_MAU])
    answer = as_json(forecast(ledger, Settings(mau_budget_total=Fraction(3)), 3))
    assert json.loads(json.dumps(answer)) == answer
    assert answer["fits"] is False
    refusal = answer["first_refusal"]
    assert (refusal["metric"], refusal["day"], refusal["month"]) == ("mau", "2025-01-31", "2025-01")
    assert {"revision", "slot", "charged", "asked", "together", "cap", "reason", "remedy", "numbers"} <= set(refusal)
    assert answer["months"][0]["month"] == "2025-01"
    assert answer["months"][0]["first_slot"] == "2025-01-03"
    assert answer["new_streams"] == [
        {
            "instance": answer["new_streams"][0]["instance"],
            "metric": "mau",
            "first_day": "2025-03-02",
            "months_charged_twice": [],
        }
    ]
    assert as_json(forecast(empty_ledger(), Settings(), 1))["first_refusal"] is None
