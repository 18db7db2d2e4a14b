"""The stores that tests begin with, as recipes for `make_store`: `make_store(recipe=a_month_published)`.

Three people come on every day, and a fourth on 4 to 6 January 2025; the settings say how they are counted. A recipe
that one file needs alone stands in that file.
"""

from __future__ import annotations

from datetime import date

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_tests.conftest import prepare, put

MONTH = date(2025, 1, 1)
DAYS = days_between(MONTH, date(2025, 2, 6))
"""Through the day whose publication lets January be restated."""


def a_month_published(store: Store) -> None:
    """DAU of every day, and MAU of every day that has a window; January is due to be restated, and is not."""
    put(store, [(f"user {n}", day) for day in DAYS for n in range(3)] + [("she", day) for day in DAYS[3:6]])
    prepare(store, DAYS)
    first_mau = MONTH.replace(day=store.settings.mau_window_days)
    for day in DAYS:
        publish("dau", day, store)
        if day >= first_mau:
            publish("mau", day, store)


def a_month_restated(store: Store) -> None:
    """A month published, and January's DAU once more."""
    a_month_published(store)
    restate(MONTH, store)
