"""A master secret that can be guessed: refused for a new store and a rotation, warned of in a living one."""

from __future__ import annotations

import shutil
import warnings
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.reporting.report import operators_report, readers_report
from dpdau_assets.core.secret_strength import WeakSecret
from dpdau_assets.core.settings import Settings
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.master_secret import NEW_SECRET
from resources.ledger_sql.keyring import Keyring
from resources.published.report_html import render
from resources.store import open_store

WEAK = "0123456789abcdef" * 4


@pytest.fixture
def living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dpdau:
    """A store that was begun with a weak secret before there was the rule."""
    stop_the_clock(monkeypatch, date(2025, 1, 1))
    dpdau = Dpdau(tmp_path, HASH_SALT_SECRET=WEAK)
    with monkeypatch.context() as patch:
        patch.setattr(Keyring, "require_strong_secret", lambda self: None)
        assert dpdau("status").code == 0
    return dpdau


@pytest.mark.parametrize("weak", [WEAK, "93718240569182736450918273645091", "a" * 40])
def test_a_new_store_is_not_begun_with_a_secret_that_can_be_guessed(weak: str, tmp_path: Path) -> None:
    refused = Dpdau(tmp_path, HASH_SALT_SECRET=weak)("erasures")
    assert refused.code == 2 and "HASH_SALT_SECRET=...: " in refused.said and "guessed" in refused.said
    assert weak not in refused.said and "Warning" not in refused.said
    assert Dpdau(tmp_path)("erasures").code == 0, "nothing was begun"


def test_a_living_store_with_such_a_secret_goes_on_and_each_command_warns_in_one_line(living: Dpdau) -> None:
    for command in (("erasures",), ("plan", "--months", "1"), ("erasures",)):
        done = living(*command)
        assert done.code == 0 and done.json is not None
        assert done.said.count("Warning: HASH_SALT_SECRET is one piece, written again and again") == 1
    assert WEAK not in living.printed and not any(
        line.strip().startswith("warnings.warn") for line in living.printed.splitlines()
    )


def test_the_operators_report_says_so_and_the_readers_does_not(living: Dpdau) -> None:
    with closed_at_the_end(), pytest.warns(WeakSecret):
        open_store.cache_clear()
        store = open_store(Settings(data_dir=living.folder / "data", hash_salt_secret=WEAK))
        report = operators_report(store, [])
        assert "HASH_SALT_SECRET is one piece" in render(report) and WEAK not in render(report)
        assert "HASH_SALT_SECRET" not in render(readers_report(store.settings, store.accountant))
    open_store.cache_clear()


def test_a_rotation_refuses_such_a_secret_and_ends_the_warning_with_a_good_one(living: Dpdau) -> None:
    refused = living("rotate-salt", "--new-secret-from", "-", stdin="ab" * 20)
    assert refused.code == 2 and "HASH_SALT_SECRET=...: " in refused.said and "ab" * 20 not in refused.said
    assert living("rotate-salt", "--new-secret-from", "-", stdin=NEW_SECRET).code == 0
    done = living("erasures", HASH_SALT_SECRET=NEW_SECRET)
    assert done.code == 0 and "Warning" not in done.said


def test_a_backup_of_such_a_store_is_restored_into_an_empty_ledger(living: Dpdau) -> None:
    assert living("backup", "--to", "saved").code == 0
    shutil.rmtree(living.folder / "data")
    restored = living("restore", "--from", "saved")
    assert restored.code == 0, restored.said
    assert living("erasures").code == 0


def test_a_good_secret_is_not_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "Warning" not in Dpdau(tmp_path)("erasures").said
