"""What assets tell in the UI: links to the documentation, the queue of erasures, freshness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import WaitingDay
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import budget_rows, mart_rows
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.metadata import described, erasure_queue
from dpdau_assets.orchestration.tables import budget_table, in_a_table, last_days
from dpdau_tests.conftest import prepare


def test_every_asset_names_a_page_of_the_documentation_that_is_there() -> None:
    for spec in build_definitions(Settings()).resolve_all_asset_specs():
        assert Path(spec.metadata["docs"].value).is_file(), spec.key


def test_a_page_is_a_link_once_it_is_said_where_the_documentation_is_browsed() -> None:
    assert described("privacy.md", "https://git.example.org/docs/")["docs"].value == (
        "https://git.example.org/docs/privacy.md"
    )


def test_what_follows_each_days_publication_is_expected_each_day() -> None:
    fresh = {
        str(spec.key.path[-1])
        for spec in build_definitions(Settings()).resolve_all_asset_specs()
        if spec.freshness_policy
    }
    assert fresh >= {"active_users", "budget_report"}


def test_the_queue_of_erasures_has_the_oldest_first_and_says_what_is_overdue() -> None:
    waiting = [
        WaitingDay(date(2025, 1, 1), 40, date(2025, 1, 31), is_overdue=True),
        WaitingDay(date(2025, 2, 9), 1, date(2025, 3, 11), is_overdue=False),
    ]
    queue = erasure_queue(waiting)
    assert queue["oldest_erasure_days"] == 40
    assert queue["erasures_waiting"].value.splitlines()[2:] == [
        "| 2025-01-01 | 40 day(s) | 2025-01-31, overdue |",
        "| 2025-02-09 | 1 day(s) | 2025-03-11 |",
    ]
    assert erasure_queue([])["erasures_waiting"].value == "Nothing waits."


DAYS = days_between(date(2025, 1, 29), date(2025, 2, 1))


@pytest.fixture
def published(make_store: Callable[..., Store]) -> Store:
    store = make_store()
    prepare(store, days_between(date(2025, 1, 1), DAYS[-1]))
    for day in DAYS:
        publish("dau", day, store)
    publish("mau", DAYS[1], store)
    return store


def test_the_last_days_of_each_metric_are_a_table_of_their_latest_published_numbers(published: Store) -> None:
    rows = mart_rows(published.accountant)
    restated = replace(rows[1], key=replace(rows[1].key, revision=1), estimate=7.25, upper_95=None)
    table = last_days([*rows[:2], restated, *rows[2:]], days=3)
    assert table.schema is not None
    assert [(column.name, column.type) for column in table.schema.columns] == [
        ("metric", "string"),
        ("day", "string"),
        ("revision", "int"),
        ("estimate", "float"),
        ("lower_95", "float"),
        ("upper_95", "float"),
    ]
    shown = [record.data for record in table.records]
    assert [(row["metric"], row["day"], row["revision"]) for row in shown] == [
        ("dau", "2025-01-30", 1),
        ("dau", "2025-01-31", 0),
        ("dau", "2025-02-01", 0),
        ("mau", "2025-01-30", 0),
    ]
    assert (shown[0]["estimate"], shown[0]["upper_95"]) == (7.25, None)
    assert shown[2]["estimate"] == rows[3].estimate
    assert last_days([]).records == []


def test_the_budget_is_a_table_with_a_row_a_charged_month_and_metric(published: Store) -> None:
    first = budget_table(budget_rows(published.settings, published.accountant)).records[0].data
    assert first == {
        "metric": "dau",
        "month": "2025-01",
        "epsilon_spent": 0.962,
        "charged": 2.998,
        "epsilon_cap": 3.0,
        "overrides": 0,
        "releases_made": 3,
        "releases_planned": 62,
    }
    assert budget_table([]).records == []


def test_a_column_that_is_not_on_the_allow_list_is_refused_by_name_and_nothing_of_it_is_shown() -> None:
    with pytest.raises(ValueError, match="'exact'") as refused:
        in_a_table(pd.DataFrame({"metric": ["dau"], "exact": [31337]}))
    assert "31337" not in str(refused.value)
