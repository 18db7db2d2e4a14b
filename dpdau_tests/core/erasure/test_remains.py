"""Each sentence of `remains` in a store in which it is true, and in one in which it is not."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure import requests
from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.erasure.quarantine import expire
from dpdau_assets.core.erasure.receipts import Document, apply_and_verify, receipt
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import RejectedRow
from dpdau_assets.core.identity import Named
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.touched import mark_touched
from dpdau_assets.orchestration.recorder import mark_of
from dpdau_tests.conftest import SECRET, FixedClock, everything_in, prepare, put
from dpdau_tests.dagster.world import project_under
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.ledger_sql.ledger import SqlLedgerTransaction
from resources.storage.backup_files import back_up
from resources.storage.seen_requests import New, SeenRequests
from resources.store import ledger_url

Make = Callable[..., Store]
HER = "her-own-id"
DAYS = days_between(date(2025, 1, 1), date(2025, 2, 8))
WINDOWS = DAYS[29:]
HERS = DAYS[5:8]
THROUGH = DAYS[-1]
EPOCH = epoch_of(THROUGH, 90)


def published(store: Store) -> None:
    """She and two others, and ten days of MAU."""
    put(store, [(f"user {n}", day) for day in DAYS for n in range(2)] + [(HER, day) for day in HERS])
    prepare(store, DAYS)
    for day in WINDOWS:
        publish("mau", day, store)


@dataclass
class Case:
    """The store of her erasure, and what was there before it."""

    store: Store
    name: str
    before: dict[str, object]
    folder: Path

    @property
    def database(self) -> Database:
        return Database(ledger_url(self.store.settings), SECRET)

    def behind(self, statement: object) -> None:
        with self.database.write() as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    @property
    def keys(self) -> Needles:
        return Needles(
            np.array(sorted(self.store.erasures.ledger.keys_of([self.name])[self.name].values()), dtype=np.uint64)
        )

    def holds_her(self, folder: Path) -> bool:
        contents = (path.read_bytes() for path in folder.rglob("*") if path.is_file())
        return any(len(self.keys.found_in([content])) for content in contents)


@pytest.fixture
def case(request: pytest.FixtureRequest, make_store: Make, tmp_path: Path) -> Case:
    store = make_store(recipe=published, today=date(2025, 2, 10))
    if "backups" in request.node.name:
        back_up(tmp_path / "backup before", store)
    before = {"releases": store.accountant.releases()}
    store.events.quarantine.keep(RejectedRow(f"exports/{who}.csv", 3, "bad") for who in (HER, "somebody"))
    (name,) = requests.request([Event(HER, "-", THROUGH, reference="TICKET-1")], store).receipts
    return Case(store, name, before, tmp_path)


# --- What each sentence says, and how it would not be so ----------------------------------------------------------


def numbers_are_as_they_were(case: Case) -> bool:
    return case.store.accountant.releases()[: len(WINDOWS)] == case.before["releases"]


def change_a_number(case: Case) -> None:
    case.behind(update(schema.releases).where(schema.releases.c.id == 1).values(noisy_value=0.5))


def only_the_last_counts_are_kept(case: Case) -> bool:
    with case.database.read() as connection:
        kept = sorted(connection.scalars(select(schema.stream_state.c.day)))
    return kept == [str(release.key.day) for release in case.store.accountant.releases("mau")][-8:]


def keep_an_older_count(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqlLedgerTransaction, "destroy_frozen", lambda *_, **__: None)
        prepare(case.store, [date(2025, 2, 9)])
        publish("mau", date(2025, 2, 9), case.store)


def a_replayed_event_of_hers_stays_out(case: Case) -> bool:
    put(case.store, [(HER, HERS[0]), (HER, date(2025, 2, 9))])
    process_days([HERS[0]], case.store)
    keys = case.store.state.late.read(HERS[0], EPOCH)
    return keys is None and not case.holds_her(case.store.settings.data_dir / "activity" / f"day={HERS[0]}")


def lose_the_tombstone(case: Case) -> None:
    case.before["keys"] = case.keys
    case.behind(delete(schema.tombstones))


def the_reference_stands_in_no_byte_and_is_shown(case: Case) -> bool:
    shown = case.store.erasures.ledger.references([case.name])[case.name].text
    return shown == "TICKET-1" and b"TICKET-1" not in everything_in(case.database)


def keep_the_reference_in_the_clear(case: Case) -> None:
    case.behind(insert(schema.wrapped_keys).values(name="TICKET-1", wrapped=b""))


def the_ledger_names_no_id_and_no_day_of_hers(case: Case) -> bool:
    """Her days are not among those that wait or are marked, and the state has them alike with all others."""
    stored = everything_in(case.database)
    marked = {day for day, _ in case.store.state.rebuilds.behind()} | set(case.store.state.rebuilds.changed())
    return HER.encode() not in stored and (not marked or marked > set(HERS))


def note_her_id(case: Case) -> None:
    case.behind(insert(schema.rebuild_progress).values(name=HER, value=1))


def note_her_days(case: Case) -> None:
    case.behind(delete(schema.rebuilds))
    case.store.state.rebuilds.mark(HERS, 1_000)


def dagsters_log_names_the_days_and_nobody(case: Case) -> bool:
    home = case.store.settings.data_dir / "home"
    if not home.exists():
        tell_dagster(case)
    log = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    named = {day for day in DAYS if f'"{day}"'.encode() in log}
    return named == set(HERS) and HER.encode() not in log and not case.holds_her(home)


def write_a_key_into_dagsters_log(case: Case) -> None:
    key = case.store.erasures.ledger.keys_of([case.name])[case.name][EPOCH]
    tell_dagster(case, {"debug": str(key)})


def tell_dagster(case: Case, metadata: dict[str, str] | None = None) -> None:
    home = case.store.settings.data_dir / "home"
    home.mkdir(exist_ok=True)
    project, _ = project_under(case.store.settings)
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        for day in case.before["marked"]:  # type: ignore[attr-defined]
            instance.report_runless_asset_event(mark_of(day, "1").materialization(project, {}))
        if metadata:
            instance.report_runless_asset_event(dg.AssetMaterialization("activity", metadata=metadata))


def the_quarantine_names_her_nowhere_and_empties_itself(case: Case) -> bool:
    folder = case.store.settings.data_dir / "quarantine"
    said = [path.read_text() for path in folder.rglob("*.csv")]
    kept = "exports/somebody.csv" in "".join(said) and not Named([HER]).is_in("".join(said))
    written = datetime.fromtimestamp(max(path.stat().st_mtime for path in folder.rglob("*.csv")), UTC).date()
    left = []
    for days in (30, 31):
        expire(replace(case.store, clock=FixedClock(written + timedelta(days=days))))
        left.append(bool(list(folder.rglob("*.csv"))))
    return kept and left == [True, False]


def name_her_in_the_quarantine(case: Case) -> None:
    folder = case.store.settings.data_dir / "quarantine"
    case.store.events.quarantine.keep([RejectedRow("exports/somebody.csv", 3, "bad")])
    (folder / "rows.csv").write_text(f"file,line,reason\nexports/{HER}.csv,3,bad\n")


def the_api_has_hashes_of_her_id_alone_until_the_next_day_has_ended(case: Case) -> bool:
    """While they are there the day's key tells whether she was asked for; then nobody is left who knows."""
    store, folder = case.store, case.store.settings.data_dir / "api"
    today, sent = store.clock.today(), (b"POST", b"/erasure", json.dumps({"user_id": HER}).encode())
    seen = SeenRequests(folder)
    before = seen.people_asked(today, "the site's key", [HER])
    new = seen.begin(today, "the site's key", "one key", sent, 1.0)
    if isinstance(new, New):
        seen.finish(new, 202, {}, json.dumps({"receipts": [case.name], "references": ["TICKET-1"]}).encode())
    known = seen.people_asked(today, "the site's key", []) == 1 + before
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    seen.close()
    is_bare = any(text in stored for text in (HER.encode(), b"TICKET-1", case.name.encode(), b"the site's key"))
    left = []
    for days in (1, 2):
        expire(replace(store, clock=FixedClock(today + timedelta(days=days))))
        left.append(bool(list(folder.iterdir())))
    return known and not is_bare and not case.holds_her(folder) and left == [True, False]


def keep_what_she_sent_as_it_was(case: Case) -> None:
    folder, today = case.store.settings.data_dir / "api", case.store.clock.today()
    with closing(SeenRequests(folder)) as seen:
        seen.people_asked(today, "the site's key", [HER])
        with closing(sqlite3.connect(folder / f"{today}.sqlite", isolation_level=None)) as connection:
            connection.execute("CREATE TABLE sent AS SELECT ? AS body", (HER,))


def keep_requests_for_ever(case: Case) -> None:
    """Keep them under a name that no day has."""
    (case.store.settings.data_dir / "api" / "2025-02.sqlite").touch()


def backups_from_before_hold_her_and_later_ones_do_not(case: Case) -> bool:
    later = case.folder / "backup after"
    if not later.exists():
        back_up(later, case.store)
    return case.holds_her(case.folder / "backup before") and not case.holds_her(later)


def keep_her_in_a_later_backup(case: Case) -> None:
    shutil.rmtree(case.folder / "backup after")
    shutil.copytree(case.folder / "backup before", case.folder / "backup after")


def copies_elsewhere_are_not_read_back(case: Case) -> bool:
    key = case.store.erasures.ledger.keys_of([case.name])[case.name][EPOCH]
    (case.folder / "export").write_bytes(key.to_bytes(8, "little"))
    return receipt(case.name, case.store)["verified"] is True


def put_a_copy_into_the_data_directory(case: Case) -> None:
    """Leave a key in the data directory, where files are read."""
    key = case.store.erasures.ledger.keys_of([case.name])[case.name][EPOCH]
    (case.store.settings.data_dir / "export").write_bytes(key.to_bytes(8, "little"))


Holds, Break = Callable[[Case], bool], Callable[[Case], None]
SENTENCES: dict[str, list[tuple[Holds, Break]]] = {
    "published noisy numbers": [(numbers_are_as_they_were, change_a_number)],
    "the last counts of mau": [(only_the_last_counts_are_kept, keep_an_older_count)],
    "tombstone": [(a_replayed_event_of_hers_stays_out, lose_the_tombstone)],
    "reference": [(the_reference_stands_in_no_byte_and_is_shown, keep_the_reference_in_the_clear)],
    "the request": [
        (the_ledger_names_no_id_and_no_day_of_hers, note_her_id),
        (the_ledger_names_no_id_and_no_day_of_hers, note_her_days),
    ],
    "Dagster's log": [(dagsters_log_names_the_days_and_nobody, write_a_key_into_dagsters_log)],
    "the quarantine": [(the_quarantine_names_her_nowhere_and_empties_itself, name_her_in_the_quarantine)],
    "requests of the API": [
        (the_api_has_hashes_of_her_id_alone_until_the_next_day_has_ended, keep_what_she_sent_as_it_was),
        (the_api_has_hashes_of_her_id_alone_until_the_next_day_has_ended, keep_requests_for_ever),
    ],
    "backups made before the erasure": [
        (backups_from_before_hold_her_and_later_ones_do_not, keep_her_in_a_later_backup)
    ],
    "what lies elsewhere": [(copies_elsewhere_are_not_read_back, put_a_copy_into_the_data_directory)],
}
CASES = [pytest.param(what, *one, id=f"{what}-{one[1].__name__}") for what, some in SENTENCES.items() for one in some]


def erased(case: Case) -> Document:
    """Her receipt, once she is erased and verified; Dagster was told of the days that wait."""
    with case.store.state.activity.lock():
        case.store.state.rebuilds.mark_reported(case.store.state.rebuilds.changed())
        mark_touched(case.store)
    case.before["marked"] = [day for day, _ in case.store.state.rebuilds.behind()]
    assert apply_and_verify(case.store).unverified == ()
    return receipt(case.name, case.store)


def test_there_is_a_store_for_every_sentence_of_what_remains(case: Case) -> None:
    document = erased(case)
    assert [row["what"] for row in document["remains"]] == list(SENTENCES)
    assert all(row["why"].endswith(".") for row in document["remains"])


@pytest.mark.parametrize(("what", "holds", "broken"), CASES)
def test_a_sentence_of_what_remains_is_true_and_is_not_in_a_store_where_it_is_broken(
    case: Case, what: str, holds: Holds, broken: Break
) -> None:
    assert what in {row["what"] for row in erased(case)["remains"]}
    assert holds(case)
    broken(case)
    if what == "tombstone":
        assert holds_her_again(case)
    else:
        assert not holds(case)


def holds_her_again(case: Case) -> bool:
    """Without her tombstone the same replay brings her in, late, since the day is read by published numbers."""
    put(case.store, [(HER, HERS[0])])
    process_days([HERS[0]], case.store)
    keys = case.before["keys"]
    assert isinstance(keys, Needles)
    late = case.store.settings.data_dir / "late"
    return any(len(keys.found_in([path.read_bytes()])) for path in late.rglob("*.parquet"))


def test_what_is_not_there_is_not_said_to_remain(case: Case, make_store: Make) -> None:
    """No stream, no reference, and where every day is marked another sentence of Dagster's log."""
    store = make_store("another", today=date(2025, 2, 10), erasure_mark="all", retention_days=40)
    (name,) = requests.request([Event(HER, "-", THROUGH)], store).receipts
    apply_and_verify(store)
    rows = {row["what"]: row for row in receipt(name, store)["remains"]}
    assert rows.keys() == SENTENCES.keys() - {"the last counts of mau", "reference"}
    assert "every day" in rows["Dagster's log"]["why"]
    assert rows["tombstone"]["until"] == "2025-06-10 is past retention"
    assert rows["backups made before the erasure"]["until"] == "30 days after the request was applied"
