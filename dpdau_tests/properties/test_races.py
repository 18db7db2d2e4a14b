"""Sixteen processes want the last release that fits: one gets it, and a key has one number, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest

from dpdau_assets.core.budget import verification
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET, FixedClock, prepare
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.racing import WARM, race_in_rounds
from resources.store import open_store

PROCESSES = 16
FIT = 10  # of Laplace noise with epsilon 0.3, under a cap of 3
START = date(2020, 1, 1)
FIRST, NINTH, LAST = range(3)  # what they race for, round by round in each month


def test_every_module_that_races_begin_with_is_there() -> None:
    """A server of forks passes over one that is not, and its processes would begin cold."""
    assert [name for name in WARM if find_spec(name) is None] == []


def month_of_round(number: int) -> date:
    years, months = divmod(number // 3, 12)
    return date(START.year + years, 1 + months, 1)


def wanted(number: int, process: int) -> date:
    """The day that a process asks for in this round."""
    month, race = month_of_round(number), number % 3
    if race == FIRST:  # two processes to a day
        return month + timedelta(days=process % (FIT - 2))
    if race == NINTH:  # all the same
        return month + timedelta(days=FIT - 2)
    to_a_day = 1 + month.month % 2
    return month + timedelta(days=FIT - 1 + process // to_a_day)


def open_at(settings: Settings) -> Store:
    return replace(open_store(settings), clock=FixedClock(date(2030, 1, 1)))


def ask(number: int, settings: Settings, process: int) -> Release | None:
    """The release, None if the month's cap refuses it."""
    try:
        return publish("dau", wanted(number, process), open_at(settings))
    except BudgetRefused:
        return None


def run_races(months: int, url: str, folder: Path) -> None:
    """Each month's ten releases, the tenth of which everyone wants for another day."""
    settings = Settings(
        data_dir=folder, hash_salt_secret=SECRET, ledger_url=url, start_date=START, dau_mechanism="laplace"
    )
    store = open_at(settings)
    firsts = [month_of_round(number) for number in range(0, 3 * months, 3)]
    prepare(store, [day for first in firsts for day in days_between(first, first + timedelta(days=FIT + PROCESSES))])
    rounds = race_in_rounds(ask, [(settings, process) for process in range(PROCESSES)], 3 * months)

    for number, given in enumerate(rounds):
        asked = [wanted(number, process) for process in range(PROCESSES)]
        won = {release.key.day for release in given if release is not None}
        assert won == set(asked) if number % 3 != LAST else len(won) == 1
        assert [release is not None for release in given] == [day in won for day in asked]
    everything = [release for given in rounds for release in given if release is not None]
    assert len(set(everything)) == len({release.key for release in everything}) == FIT * months
    assert set(store.accountant.releases()) == set(everything)
    for month in firsts:
        assert len(store.accountant.charges("dau", month)) == FIT
    assert len(store.accountant.mechanism_runs()) == FIT * months
    assert verification.problems(store.settings, store.accountant, everything) == []


def test_of_sixteen_processes_one_gets_the_last_release_that_fits_and_a_key_has_one_number(
    database_url: str, tmp_path: Path
) -> None:
    run_races(2, database_url, tmp_path)


@pytest.mark.slow
def test_each_of_many_races_for_the_last_release_is_won_by_one(database_url: str, tmp_path: Path) -> None:
    run_races(at_length(ci=5, soak=50), database_url, tmp_path)
