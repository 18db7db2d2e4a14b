"""MART_DIR: where readers look, apart from what is confidential."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadInput, BadSetting
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_assets.core.reporting.report import operators_report, readers_report
from dpdau_assets.core.settings import Settings
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.cli.test_cli_daily import DAYS, two_days_are_published
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.support.master_secret import SECRET
from resources.published.mart_duckdb import FILES
from resources.storage.backup_files import back_up
from resources.storage.durable import make_folder
from resources.store import open_mart, open_reports, open_store

OURS = {*FILES, "readers.html"}
ADA = ("--who", "Ada", "--why", "a test")

Begin = Callable[..., Dpdau]


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield open_store(
        Settings(data_dir=tmp_path / "data", mart_dir=tmp_path / "for" / "readers", hash_salt_secret=SECRET)
    )
    open_store.cache_clear()


def refresh(store: Store) -> None:
    open_mart(store.settings).replace(mart_rows(store.accountant))
    open_reports(store.settings).replace(readers_report(store.settings, store.accountant), operators_report(store, []))


def test_a_folder_that_is_missing_is_made_for_everybody_to_read_whatever_the_umask_says(store: Store) -> None:
    before = os.umask(0o077)
    try:
        refresh(store)
    finally:
        os.umask(before)
    folder = store.settings.mart_dir
    assert folder and stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o755
    assert modes_in(folder) == dict.fromkeys(OURS, 0o644)
    assert modes_in(store.settings.data_dir / "report") == {"operators.html": 0o600}
    assert not (store.settings.data_dir / "mart").exists()


@pytest.mark.parametrize(("rights", "wanted"), [(0o2750, 0o640), (0o700, 0o600)])
def test_a_folder_that_is_there_keeps_its_rights_and_its_files_are_for_whom_it_is(
    store: Store, rights: int, wanted: int
) -> None:
    folder = store.settings.mart_dir
    assert folder
    folder.mkdir(parents=True)
    folder.chmod(rights)
    os.chown(folder, -1, os.getgid())
    refresh(store)
    assert stat.S_IMODE(folder.stat().st_mode) == rights
    assert modes_in(folder) == dict.fromkeys(OURS, wanted)
    assert {path.stat().st_gid for path in folder.iterdir()} == {folder.stat().st_gid}


@pytest.mark.parametrize(
    ("mart", "said"),
    [
        ("data/mart", "is inside DATA_DIR"),
        ("data", "is DATA_DIR"),
        ("", "contains DATA_DIR"),
        ("home/x", "is inside Dagster's home"),
        ("landing/mart", "is inside LANDING_DIR"),
        ("link/mart", "is inside DATA_DIR"),
    ],
)
def test_a_folder_in_or_around_one_that_is_not_for_readers_is_refused_before_anything_is_made(
    mart: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    settings = Settings(
        data_dir=tmp_path / "data",
        mart_dir=tmp_path / mart,
        dagster_home=tmp_path / "home",
        landing_dir=tmp_path / "landing",
        hash_salt_secret=SECRET,
    )
    for opens in (open_store, open_mart, open_reports):
        with pytest.raises(BadSetting, match="MART_DIR=") as raised:
            opens(settings)
        assert said in raised.value.reason and "beside it" in raised.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "mart"


def beside_the_ledger(folder: Path) -> Path:
    return folder / "ledgers"


@pytest.mark.parametrize("lay", [a_file, below_a_file, beside_the_ledger], ids=lambda lay: lay.__name__)
def test_a_folder_that_cannot_be_written_to_or_holds_the_ledger_is_refused_before_anything_is_published(
    lay: Callable[[Path], Path], tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        mart_dir=lay(tmp_path),
        hash_salt_secret=SECRET,
        ledger_url=f"sqlite:///{tmp_path}/ledgers/of/ledger.sqlite",
    )
    with pytest.raises(BadSetting, match="MART_DIR="):
        open_store(settings)
    assert not (tmp_path / "data").exists()


def test_a_restore_reads_the_mart_that_the_store_had_before_mart_dir_was_set(
    begun: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that mart the newest numbers would be drawn a second time."""
    stop_the_clock(monkeypatch, date(2025, 1, 5))
    dpdau = begun(two_days_are_published)
    assert dpdau("backup", "--to", "saved").code == 0
    assert dpdau("run", "--from", DAYS[2], "--to", DAYS[2]).code == 0
    for path in (dpdau.folder / "data").glob("ledger.sqlite*"):
        path.unlink()
    readers = {"MART_DIR": str(tmp_path / "readers")}
    refused = dpdau("restore", "--from", "saved", "--published-through", DAYS[1], *ADA, **readers)
    assert refused.code == 5 and f"{DAYS[2]} is published" in refused.said
    done = dpdau("restore", "--from", "saved", "--published-through", DAYS[2], *ADA, **readers)
    assert (done.code, done.json["taken_back"]) == (0, 1), done.said


def test_receipts_read_what_we_write_for_readers_and_not_what_they_put_beside_it(store: Store) -> None:
    folder = store.settings.mart_dir
    assert folder
    make_folder(folder)
    for name in (*OURS, "notebook.ipynb"):
        (folder / name).touch()
    names = {file.name for file in store.state.files.files()}
    assert {name for name in names if name.startswith("mart/")} == {f"mart/{name}" for name in OURS}
    assert "ledger.sqlite" in names


def test_a_backup_is_not_put_where_readers_look(store: Store) -> None:
    assert store.settings.mart_dir
    with pytest.raises(BadInput, match="is inside MART_DIR"):
        back_up(store.settings.mart_dir / "backup", store)


@pytest.mark.slow
def test_numbers_reports_verification_and_a_restore_go_by_the_folder_that_readers_look_in(
    begun: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_clock(monkeypatch, date(2025, 1, 5))
    dpdau = begun(two_days_are_published)
    readers = {"MART_DIR": str(tmp_path / "readers")}
    assert dpdau("backup", "--to", "saved").code == 0
    assert dpdau("run", "--from", DAYS[2], "--to", DAYS[2], **readers).code == 0
    assert modes_in(tmp_path / "readers") == dict.fromkeys(OURS, 0o644)
    assert f"dau,{DAYS[2]}" in (tmp_path / "readers" / "latest.csv").read_text()
    written = dpdau("report", **readers).json["files"]
    assert written == [
        str(tmp_path / "readers" / "readers.html"),
        str(dpdau.folder / "data" / "report" / "operators.html"),
    ]
    assert dpdau("verify-ledger", **readers).json["holds"] is True
    shutil.rmtree(dpdau.folder / "data")
    done = dpdau("restore", "--from", "saved", "--published-through", DAYS[2], *ADA, **readers)
    assert (done.code, done.json["taken_back"]) == (0, 1), done.said
    assert dpdau("dau", DAYS[2], **readers).code == 0
