"""What assets tell in the UI: links to the documentation, the queue of erasures, freshness."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from dpdau_assets.core.erasure.requests import WaitingDay
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.metadata import described, erasure_queue


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
    found = erasure_queue(waiting)
    assert found["oldest_erasure_days"] == 40
    assert found["erasures_waiting"].value.splitlines()[2:] == [
        "| 2025-01-01 | 40 day(s) | 2025-01-31, overdue |",
        "| 2025-02-09 | 1 day(s) | 2025-03-11 |",
    ]
    assert erasure_queue([])["erasures_waiting"].value == "Nothing waits."
