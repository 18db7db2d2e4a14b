"""Where people are kept is declared, and it is the whole truth: every asset says so, and every byte is asked."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from dpdau_assets.core.dates import days_between, month_of
from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.erasure.inspection import HOLDS_USER_DATA
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.runs import (
    DAU,
    MAU,
    REPORTS,
    RESTATEMENT,
    Step,
    building,
)
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.metadata import NO_USER_DATA
from dpdau_assets.orchestration.running import run_steps
from dpdau_tests.conftest import SECRET, prepare, put
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.support.acknowledging import acknowledge
from resources.dagster_instance import open_run
from resources.settings_env import read_settings
from resources.storage.file_inventory import DiskFileInventory
from resources.store import open_store

SHE = "planted-user-27182@example.org"
DAYS = days_between(date(2025, 1, 28), date(2025, 2, 1))
"""Of a window of three days, and the end of a month."""


def test_every_asset_is_declared_to_hold_people_or_to_hold_nobody() -> None:
    for spec in build_definitions(Settings()).resolve_all_asset_specs():
        says_none = NO_USER_DATA.items() <= spec.tags.items()
        assert says_none != (spec.key.to_user_string() in HOLDS_USER_DATA), spec.key


def test_every_asset_that_holds_people_is_there() -> None:
    assets = {spec.key.to_user_string() for spec in build_definitions(Settings()).resolve_all_asset_specs()}
    assert HOLDS_USER_DATA.keys() <= assets


def test_her_key_is_found_in_exactly_the_folders_that_are_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user through everything: in time, too late, and in a batch that still waits; nothing of hers is erased."""
    home = tmp_path / "dagster_home"
    values = {
        "DATA_DIR": tmp_path / "data",
        "HASH_SALT_SECRET": SECRET,
        "DAGSTER_HOME": home,
        "RESTATEMENT_DAY": 2,
        "GRACE_DAYS": 0,
        "START_DATE": DAYS[0],
        "MAU_WINDOW_DAYS": 3,
        "MAU_MECHANISM": "gaussian",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    stop_the_clock(monkeypatch, DAYS[-1] + timedelta(days=1))
    store = open_store(read_settings())
    definitions = build_definitions(store.settings)
    put(store, [("someone else", DAYS[0]), (SHE, DAYS[0])])
    prepare(store, DAYS[1:2])
    built = building([DAYS[0], *DAYS[2:]])
    wanted = [*built, Step(MAU, DAYS[2]), Step(DAU, DAYS[3]), Step(DAU, DAYS[4])]
    with open_run(home) as instance:
        run_steps(wanted, definitions, instance, lambda _: None)
        put(store, [(SHE, DAYS[3])])  # too late: its number is published
        finish = [*building(DAYS[:1]), Step(RESTATEMENT, month_of(DAYS[0])), Step(REPORTS, None)]
        run_steps(finish, definitions, instance, lambda _: None)
    put(store, [(SHE, DAYS[1])])  # and this one waits
    acknowledge(store, [(SHE, DAYS[1])])  # and this one too
    assert (
        store.accountant.restated() == {month_of(DAYS[0])}
        and (tmp_path / "data" / "mart" / "active_users.csv").exists()
    )
    assert top_folders_with(hers(store, SHE), {"": store.settings.data_dir, "dagster_home": home}) == {
        folder for folders in HOLDS_USER_DATA.values() for folder in folders
    }


def hers(store: Store, user: str) -> Keys:
    epochs = sorted({epoch for _, epoch in store.state.activity.stored()})
    secrets = store.state.salts.epoch_keys(epochs)
    return np.array(sorted(user_key(secrets[epoch].secret, user) for epoch in epochs), dtype=np.uint64)


def top_folders_with(keys: Keys, roots: dict[str, Path]) -> set[str]:
    """Which folders have a file with one of these keys, among files that show what they hold."""
    inventory, needles = DiskFileInventory(roots, ["mart/active_users.duckdb"]), Needles(keys)
    return {file.name.partition("/")[0] for file in inventory.files() if len(needles.found_in(inventory.chunks(file)))}
