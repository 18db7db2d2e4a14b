"""The stores that tests begin with, as recipes for `make_store`: `make_store(recipe=a_month_published)`.

Three people come on every day of January and February 2025, and she on 4 to 6 January; the settings say how they are
counted. A recipe that one file needs alone stands in that file.
"""

from __future__ import annotations

from datetime import date

from dpdau_assets.core.erasure import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.release import publish, restate
from dpdau_assets.core.windows import days_between
from dpdau_tests.conftest import prepare, put

SHE = "she"
HERS = days_between(date(2025, 1, 4), date(2025, 1, 6))
MONTH = date(2025, 1, 1)
DAYS = days_between(MONTH, date(2025, 2, 6))
"""Through the day whose publication lets January be restated."""


def events_in(outside: Outside) -> None:
    """Events of all days wait in the inbox."""
    put(outside, [(f"user {n}", day) for day in DAYS for n in range(3)] + [(SHE, day) for day in HERS])


def built(outside: Outside) -> None:
    """Every day has its state and its sketch; nothing is published."""
    events_in(outside)
    prepare(outside, DAYS)


def a_month_published(outside: Outside) -> None:
    """DAU of every day, and MAU of every day that has a window; January is due to be restated, and is not."""
    built(outside)
    first_mau = MONTH.replace(day=outside.settings.mau_window_days)
    for day in DAYS:
        publish("dau", day, outside)
        if day >= first_mau:
            publish("mau", day, outside)


def a_month_restated(outside: Outside) -> None:
    """The same, and January's DAU once more."""
    a_month_published(outside)
    restate(MONTH, outside)


def an_erasure_pending(outside: Outside) -> None:
    """A month is published, and her request has come in and is not applied."""
    a_month_published(outside)
    request([Event(SHE, "-", DAYS[-1])], outside, confirmed=True)
