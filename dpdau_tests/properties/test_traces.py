"""After an erasure is verified, nothing in the ledger says on which days the person was: two who were there on other
days leave ledgers that cannot be told apart, also by whoever has every key that lives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from sqlalchemy import LargeBinary, select

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure import receipts
from dpdau_assets.core.erasure.receipts import apply_and_verify, receipt
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.facts import Partition
from dpdau_assets.core.identity import content_hash, data_version, user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_assets.core.sketches.keysets import digest, unite
from dpdau_assets.core.state.activity import day_version, process_days
from dpdau_tests.conftest import SECRET, prepare, put
from resources.ledger_sql import receipts as ledger_receipts
from resources.ledger_sql import schema
from resources.ledger_sql.database import Database
from resources.store import ledger_url

Make = Callable[..., Store]
DAYS = days_between(date(2025, 1, 1), date(2025, 2, 3))
MAU = DAYS[29:]
FIRST, OTHER = DAYS[3:6], DAYS[10:13]
TODAY = date(2025, 2, 5)


def two_came(store: Store) -> None:
    put(store, [(f"user {n}", day) for day in DAYS for n in range(2)])


def lived(make_store: Make, name: str, hers: list[date]) -> Store:
    """She came on these days, which were published; user 0 was erased before her; and so was she."""
    store = make_store(name, today=TODAY, recipe=two_came)
    put(store, [("her", day) for day in hers])
    prepare(store, DAYS)
    for day in MAU:
        publish("mau", day, store)
    put(store, [("her", day) for day in hers] + [("late", DAYS[7])])
    process_days(DAYS, store)
    other = erase(store, "user 0")
    apply_and_verify(store)
    receipt(other, store)  # which reads every partition back while she is there
    path = store.settings.data_dir / f"activity/day={hers[0]}/epoch=223.parquet"
    with_her = path.read_bytes()
    her = erase(store, "her")
    assert apply_and_verify(store).unverified == ()
    path.write_bytes(with_her)
    assert receipt(her, store)["verified"] is False  # and names the day
    assert apply_and_verify(store).repaired == (f"activity/day={hers[0]}/epoch=223",)
    return store


def erase(store: Store, user: str) -> str:
    return request([Event(user, "-", DAYS[-1])], store).receipts[0]


def kept_in_the_ledger(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All that the ledger holds, but for what is random, encrypted or drawn."""
    drawn = {
        "noisy_value",
        "hash",
        "commitment",
        "commitments",
        "signature",
        "inspection",
        "digest",
        "receipt",
        "batch",
        "change",
    }
    kept_rows = {}
    with Database(ledger_url(store.settings), SECRET).read() as connection:
        for table in schema.metadata.sorted_tables:
            kept = [c for c in table.columns if c.name not in drawn and not isinstance(c.type, LargeBinary)]
            rows = [dict(row) for row in connection.execute(select(*kept)).mappings()] if kept else []
            kept_rows[table.name] = sorted((plain(row) for row in rows), key=str)
    kept_rows["builds"] = sorted(({"place": str(place)} for place in store.state.builds.all()), key=str)
    return kept_rows


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what its receipt's text says of files, days and states."""
    if row.get("body"):
        body = json.loads(row["body"])
        row["body"] = {name: body[name] for name in ("state", "survivors", "scope", "epochs", "remains")}
    if "subject" in row and " " not in row["subject"]:
        row["subject"] = "..."  # of a request, random
    return row


def test_the_ledger_says_nothing_of_the_days_on_which_an_erased_person_was(make_store: Make) -> None:
    first, second = (
        kept_in_the_ledger(lived(make_store, name, hers)) for name, hers in (("one", FIRST), ("other", OTHER))
    )
    for table in first:
        assert first[table] == second[table], table


@pytest.mark.parametrize("kept", ["the texts of earlier receipts", "marks"])
def test_the_comparison_notices_what_used_to_be_kept(
    make_store: Make, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check can fail."""
    nothing = lambda *_, **__: None  # noqa: E731
    if kept == "marks":
        monkeypatch.setattr(receipts, "_leave_no_marks", nothing)
    else:
        monkeypatch.setattr(ledger_receipts, "_forget_bodies", nothing)
    first, second = (lived(make_store, name, hers) for name, hers in (("one", FIRST), ("other", OTHER)))
    assert kept_in_the_ledger(first) != kept_in_the_ledger(second)


def frozen(store: Store) -> list[int]:
    with store.accountant.transaction() as transaction:
        run = transaction.last_run("mau", 30)
        assert run is not None
        return transaction.frozen(run.name, 99)


def test_of_a_streams_counts_only_those_are_kept_that_numbers_to_come_are_made_of(make_store: Make) -> None:
    store = make_store(today=date(2025, 2, 20), recipe=two_came)
    days = days_between(date(2025, 1, 1), date(2025, 2, 12))
    prepare(store, days)
    for day in days[29:]:
        publish("mau", day, store)
    assert len(frozen(store)) == 8 and len(store.accountant.releases("mau")) == 14
    assert store.accountant.problems() == []


# --- Versions that Dagster keeps ---------------------------------------------------------------------------------


def found_by_trying(version: str, day: date, store: Store, users: list[str]) -> list[str]:
    """The people with whom the day would have had this version: by every key and nonce that lives."""
    epoch = epoch_of(day, 90)
    secret = store.state.salts.epoch_keys([epoch])[epoch].secret
    keys = store.state.activity.read(day, epoch)
    assert keys is not None
    label, matching = str(Partition("activity", day, epoch)), []
    nonces = [build.current.nonce for build in store.state.builds.all().values() if build.current]
    for user in users:
        tried = digest(unite([keys, np.array([user_key(secret, user)], dtype=np.uint64)]))
        if version in {data_version(f"activity {day}", [content_hash(nonce, label, tried)]) for nonce in nonces}:
            matching.append(user)
    return matching


def test_the_version_that_a_day_had_with_her_cannot_be_tried_out_once_she_is_erased(make_store: Make) -> None:
    store = make_store(today=TODAY, recipe=two_came)
    put(store, [("her", FIRST[0])])
    prepare(store, DAYS)
    version = day_version(FIRST[0], store)  # as Dagster's log has it for ever
    assert found_by_trying(version, FIRST[0], store, ["nobody", "her"]) == ["her"], "while she is there it can be"
    erase(store, "her")
    apply_and_verify(store)
    assert found_by_trying(version, FIRST[0], store, ["nobody", "her"]) == []
    assert version.encode() not in (store.settings.data_dir / "ledger.sqlite").read_bytes()
