"""Who may read what is kept: its owner alone, whatever the umask says."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.reporting.answers import mart_rows
from dpdau_assets.core.reporting.report import operators_report, readers_report
from dpdau_assets.core.settings import Settings
from dpdau_tests.conftest import FixedClock, opened, prepare
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.master_secret import SECRET
from resources.dagster_instance import open_run
from resources.ledger_sql.database import Database, open_engine, schema_version
from resources.reading.event_files import event_files
from resources.storage.backup_files import back_up, restore
from resources.storage.durable import create, make_folder, mode_in, write_durably
from resources.store import open_mart, open_reports

TODAY = date(2025, 1, 10)
DAYS = days_between(date(2025, 1, 1), date(2025, 1, 3))
UMASKS = pytest.mark.parametrize("umask", [0o000, 0o777], ids=oct)


@contextmanager
def under(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def modes(*roots: Path) -> dict[str, set[int]]:
    """The modes of all files and of all folders, the roots included."""
    by_kind: dict[str, set[int]] = {"files": set(), "folders": set()}
    for path in (path for root in roots for path in (root, *root.rglob("*"))):
        kind = "folders" if path.is_dir() else "files"
        by_kind[kind].add(stat.S_IMODE(path.stat().st_mode))
    return by_kind


def work(store: Store, events: Path, backup: Path) -> None:
    """All that writes: ingest, late events, a quarantine, numbers, an erasure, receipts, mart, reports, a backup."""
    ingest(event_files(events), store, partial=True)
    prepare(store, DAYS)
    publish("dau", DAYS[0], store)
    ingest(event_files(events.with_name("late.csv")), store, partial=True)
    request([Event("user 1", "-", TODAY, None)], store)
    apply_and_verify(store)
    prepare(store, DAYS)
    mart = open_mart(store.settings)
    mart.replace(mart_rows(store.accountant))
    open_reports(store.settings).replace(readers_report(store.settings, store.accountant), operators_report(store, []))
    back_up(backup, store)
    ingest(event_files(events.with_name("more.csv")), store, partial=True)


@UMASKS
def test_every_file_that_is_written_is_its_owners_alone_under_any_umask(umask: int, tmp_path: Path) -> None:
    """The ledger lies in a folder of its own; it is looked at while it is open, with its -wal and -shm."""
    handed_in = tmp_path / "handed in"
    handed_in.mkdir()
    for name in ("events", "late", "more"):
        rows = [f"user {n} {name if name == 'more' else ''},{day}" for day in DAYS for n in range(4)]
        rows += [f"{name},{DAYS[0]}"]
        (handed_in / f"{name}.csv").write_text("\n".join(["user_id,day", *rows]) + "\nnobody,never\n")
    data, ledger, backup = (
        tmp_path / "data",
        tmp_path / "elsewhere" / "deep" / "ledger.sqlite",
        tmp_path / "backups" / "1",
    )
    settings = {"ledger_url": f"sqlite:///{ledger}"}
    with under(umask), closed_at_the_end():
        store = opened(data, TODAY, **settings)
        work(store, handed_in / "events.csv", backup)
        assert {path.name for path in ledger.parent.iterdir()} >= {
            "ledger.sqlite",
            "ledger.sqlite-wal",
            "ledger.sqlite-shm",
        }
        by_kind = modes(data, ledger.parents[1], backup.parent)
    folders = {"activity", "late", "sketches", "inbox", "quarantine", "mart", "report"}
    assert {path.name for path in data.iterdir()} == folders | {"store.id", "state.lock", "quarantine.lock"}
    assert by_kind == {"files": {0o600}, "folders": {0o700}}

    with under(umask), closed_at_the_end():
        again = Settings(data_dir=tmp_path / "again", hash_salt_secret=SECRET)
        restore(backup, again, FixedClock(TODAY + timedelta(days=1)))
        assert modes(again.data_dir) == {"files": {0o600}, "folders": {0o700}}


@UMASKS
def test_dagsters_home_is_its_owners_alone_under_any_umask(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "above" / "home"))
    with under(umask), open_run(tmp_path / "above" / "home"):
        closed = (tmp_path / "above", tmp_path / "above" / "home")
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in closed} == {0o700}


def test_a_ledger_that_was_readable_for_others_is_closed_to_them_when_it_is_opened(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    Database(f"sqlite:///{ledger}").engine.dispose()
    ledger.chmod(0o644)
    with closing(sqlite3.connect(ledger)) as other:
        other.execute("BEGIN IMMEDIATE")  # with files beside it
        Database(f"sqlite:///{ledger}").engine.dispose()
        assert modes(tmp_path)["files"] == {0o600} and len(list(tmp_path.iterdir())) == 3


def test_what_is_only_looked_for_is_not_made(tmp_path: Path) -> None:
    assert schema_version(open_engine(f"sqlite:///{tmp_path}/none/ledger.sqlite")) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o2770, 0o711])
def test_a_folder_that_is_there_keeps_its_rights_and_a_file_in_it_may_be_for_whom_the_folder_is(
    mode: int, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    make_folder(folder, mode)
    make_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    write_durably(folder / "file", lambda file: file.write(b"text"), mode_in(folder))
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o600 | (mode & 0o044)
    with pytest.raises(FileExistsError):
        create(folder / "file")
