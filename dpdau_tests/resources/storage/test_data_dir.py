"""A data directory and its ledger: each is used with the other one alone."""

from __future__ import annotations

import errno
import os
import re
from datetime import date
from pathlib import Path

import pytest

import resources.store as store_module
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.ledger import Ledger
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import SECRET, prepare, put
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.racing import race_in_rounds
from resources.ledger_sql.ledger import SqlLedger
from resources.storage import data_dir
from resources.storage.data_dir import claim, live_files, store_id_in
from resources.store import open_ledger, open_store

DAY = date(2025, 1, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    open_store.cache_clear()
    return tmp_path


def settings(root: Path, folder: str, ledger: str, secret: str | None = SECRET) -> Settings:
    return Settings(data_dir=root / folder, ledger_url=f"sqlite:///{root}/{ledger}.sqlite", hash_salt_secret=secret)


def opened(root: Path, folder: str, ledger: str, secret: str | None = SECRET) -> Store:
    open_store.cache_clear()
    return open_store(settings(root, folder, ledger, secret))


def with_an_event(root: Path, name: str) -> Store:
    store = opened(root, name, name)
    put(store, [("somebody", DAY)])
    return store


def of_a_store_without_its_id(root: Path) -> None:
    with_an_event(root, "a")
    (root / "a" / "store.id").unlink()


def test_a_folder_and_a_ledger_know_each_other_from_the_first_use(root: Path) -> None:
    store = opened(root, "a", "a")
    name = store.accountant.store_id()
    assert name and re.fullmatch("[0-9a-f]{32}", name) and store_id_in(root / "a") == name
    assert opened(root, "a", "a").accountant.store_id() == name != opened(root, "b", "b").accountant.store_id()


@pytest.mark.parametrize("is_used", [False, True])
def test_a_folder_is_not_opened_with_the_ledger_of_another_store(root: Path, is_used: bool) -> None:
    for name in ("a", "b"):
        with_an_event(root, name) if is_used else opened(root, name, name)
    for folder, ledger in (("a", "b"), ("b", "a")):
        with pytest.raises(BadSetting, match=f"DATA_DIR={root / folder} is of another store than the ledger\\."):
            opened(root, folder, ledger)
    for name in ("a", "b"):
        assert len(opened(root, name, name).events.inbox.batches()) == is_used


def test_a_ledger_that_was_lost_is_not_begun_anew_beside_the_files_of_its_store(root: Path) -> None:
    before = with_an_event(root, "a").accountant.store_id()
    for secret in (SECRET, None):
        with pytest.raises(BadSetting, match="another store than the ledger, which is empty") as refused:
            opened(root, "a", "new", secret)
        assert "dpdau restore" in refused.value.remedy
        assert SqlLedger(open_ledger(settings(root, "a", "new"))).store_id() is None
    assert store_id_in(root / "a") == before


def test_state_that_no_store_is_named_of_is_taken_by_no_ledger(root: Path) -> None:
    of_a_store_without_its_id(root)
    opened(root, "b", "b")
    for ledger in ("a", "b", "new"):
        with pytest.raises(BadSetting, match="holds state, and nothing says that it is of this ledger's store"):
            opened(root, "a", ledger)
    assert store_id_in(root / "a") is None and any(live_files(root / "a"))


@pytest.mark.parametrize("is_folded", [False, True])
def test_an_empty_folder_does_not_take_the_place_of_the_one_that_a_ledger_has_on_record(
    root: Path, is_folded: bool
) -> None:
    """Also while nothing but the inbox holds anything."""
    store = with_an_event(root, "a")
    if is_folded:
        prepare(store, [DAY])
    with pytest.raises(BadSetting, match="is empty, and the ledger has another folder on record"):
        opened(root, "elsewhere", "a")
    assert store_id_in(root / "elsewhere") is None


@pytest.mark.parametrize("step", ["before the folder is named", "before the folder is on record"])
def test_a_first_use_that_was_killed_is_completed_by_the_next(
    root: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken = (os, "link") if step == "before the folder is named" else (data_dir, "sync_folder")
        patch.setattr(*broken, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            opened(root, "a", "a")
    store = opened(root, "a", "a")
    assert store.accountant.store_id() == store_id_in(root / "a") and store.accountant.has_folder()
    assert [path.name for path in (root / "a").iterdir() if path.name.startswith(".store.id")] == []


def test_of_two_ledgers_that_are_begun_on_one_folder_at_once_one_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is begun whole between the look that the first took at the folder and its own claim of it."""
    begun = []

    def claim_late(folder: Path, ledger: Ledger) -> None:
        if not begun:
            begun.append("two")
            open_store.__wrapped__(settings(root, "a", "two"))
        claim(folder, ledger)

    monkeypatch.setattr(store_module, "claim", claim_late)
    with pytest.raises(BadSetting, match="is of another store than the ledger"):
        opened(root, "a", "one")
    assert opened(root, "a", "two").accountant.store_id() == store_id_in(root / "a")


def open_in_a_race(round_number: int, root: Path, folder: str, ledger: str) -> str:
    """The name of the store that is opened, or why none is."""
    try:
        store = opened(root / f"{round_number}", folder, ledger)
    except BadSetting as refused:
        return refused.reason
    return str(store.accountant.store_id())


@pytest.mark.also_long(weight=2)
def test_of_processes_that_begin_one_ledger_on_two_folders_at_once_one_folder_is_named(root: Path) -> None:
    rounds = at_length(test=2, ci=20, soak=200)
    for number in range(rounds):
        (root / f"{number}").mkdir()
    found = race_in_rounds(open_in_a_race, [(root, folder, "one") for folder in ("a", "b")], rounds)
    for number, (first, second) in enumerate(found):
        named = [folder for folder in ("a", "b") if store_id_in(root / f"{number}" / folder)]
        refused = [answer for answer in (first, second) if "has another folder on record" in answer]
        assert len(named) == len(refused) == 1, (first, second)


@pytest.mark.also_long(weight=2)
def test_processes_that_begin_one_store_at_once_all_open_it(root: Path) -> None:
    rounds = at_length(test=2, ci=20, soak=200)
    for number in range(rounds):
        (root / f"{number}").mkdir()
    found = race_in_rounds(open_in_a_race, [(root, "a", "one")] * 3, rounds)
    for number, answers in enumerate(found):
        assert set(answers) == {store_id_in(root / f"{number}" / "a")}


def test_a_file_system_without_links_keeps_the_name_all_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert opened(root, "a", "a").accountant.store_id() == store_id_in(root / "a")
    with pytest.raises(BadSetting, match="is of another store than the ledger"):
        opened(root, "a", "b")


@pytest.mark.parametrize("content", [b"", b"caf\xc3\xa9", b"0" * 31])
def test_a_damaged_name_is_said_to_be_damaged(root: Path, content: bytes) -> None:
    opened(root, "a", "a")
    (root / "a" / "store.id").write_bytes(content)
    with pytest.raises(BadSetting, match=r"store\.id is damaged"):
        opened(root, "a", "a")


def test_without_a_secret_nothing_is_begun_and_nothing_is_named(root: Path) -> None:
    assert opened(root, "a", "a", None).accountant.store_id() is None and store_id_in(root / "a") is None
    assert opened(root, "a", "a").accountant.store_id() == store_id_in(root / "a")
    assert opened(root, "a", "a", None).accountant.store_id() == store_id_in(root / "a")
