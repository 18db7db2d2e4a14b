"""Erasure as an operator meets it: JSON on stdout, exit codes, and no raw id anywhere afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dpdau_assets.cli.main import app
from dpdau_tests.cli.conftest import Dpdau
from dpdau_tests.support.master_secret import NEW_SECRET, SECRET

DAYS = ("2025-01-01", "2025-01-02", "2025-01-03")
PLANTED = "@planted.example"
WHOLE = ("--from", DAYS[0], "--to", DAYS[-1])
NONE_OLD = {"older_files": {"repaired": [], "broken": []}}


def events_are_there(dpdau: Dpdau) -> None:
    """200 people on each of three days; a MAU window of one day, so that three are enough to publish."""
    write(dpdau.folder / "events.jsonl", [{"user_id": person(n), "day": day} for day in DAYS for n in range(200)])


def state_is_built(dpdau: Dpdau) -> None:
    events_are_there(dpdau)
    assert dpdau("ingest", "--from", "events.jsonl").code == 0
    assert dpdau("rebuild", *WHOLE).json == {"days_rebuilt": 3}
    assert PLANTED not in dpdau.printed


@pytest.fixture
def dpdau(begun: Callable[..., Dpdau]) -> Dpdau:
    """Nothing is ingested yet."""
    return begun(events_are_there, MAU_MECHANISM="gaussian", MAU_WINDOW_DAYS="1")


@pytest.fixture
def built(begun: Callable[..., Dpdau]) -> Dpdau:
    return begun(state_is_built, MAU_MECHANISM="gaussian", MAU_WINDOW_DAYS="1")


def person(number: int) -> str:
    return f"person-{number}{PLANTED}"


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    assert set(names) <= document.keys()
    return {name: value for name, value in document.items() if name not in names}


def require_no_raw_id(dpdau: Dpdau) -> None:
    kept = [path for path in (dpdau.folder / "data").rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert [path for path in kept if PLANTED.encode() in path.read_bytes()] == []
    assert PLANTED not in dpdau.printed


def test_a_known_and_an_unknown_person_are_answered_alike_and_asking_again_is_the_same_request(built: Dpdau) -> None:
    names = [person(1), f"nobody{PLANTED}"]
    known, unknown = (built("erase", "--user-id", "-", "--through", DAYS[1], stdin=f"{name}\n") for name in names)
    assert (known.code, known.said) == (unknown.code, unknown.said)
    assert known.code == 0 and known.said.startswith("Ids are compared byte by byte: ") and PLANTED not in known.said
    assert without(known.json, "receipts", "batches") == without(unknown.json, "receipts", "batches")
    assert known.json.keys() == {"received", "receipts", "references", "parked", "batches", "passed_over", "warnings"}
    assert (known.json["received"], len(known.json["receipts"]), known.json["parked"]) == (1, 1, False)

    write(built.folder / "again.jsonl", [{"user_id": person(1), "erase_day": DAYS[1]}])
    again = built("erase", "--from", "again.jsonl").json
    assert again["receipts"] == known.json["receipts"] and again["batches"] == known.json["batches"]
    rows = built("erasures", "--state", "received").json
    assert [row["receipt"] for row in rows] == known.json["receipts"] + unknown.json["receipts"]
    assert without(rows[0], "receipt", "batch") == without(rows[1], "receipt", "batch")
    assert rows[0]["scope"] == {"through": DAYS[1], "days": []} and rows[0]["overdue"] is False

    receipts = [answer.json["receipts"][0] for answer in (known, unknown)]
    early = [built("receipt", name) for name in receipts]
    assert [answer.code for answer in early] == [3, 3]
    assert without(early[0].json, "receipt") == without(early[1].json, "receipt")
    assert built("flush-deletes").json == {"verified": 2, "unverified": [], "days_rebuilt": 2, **NONE_OLD}
    late = [built("receipt", name) for name in receipts]
    assert [answer.code for answer in late] == [0, 0]
    of_its_own = ("receipt", "previous", "hash", "signature")
    assert without(late[0].json, *of_its_own) == without(late[1].json, *of_its_own)
    require_no_raw_id(built)


def test_a_file_of_old_days_references_and_almost_equal_ids_is_taken_in_order_and_told_of(built: Dpdau) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    rows = [
        {"user_id": person(1), "days": ["2024-07-30", DAYS[0]], "reference": "T-1"},
        {"user_id": person(2), "erase_day": "2024-12-31", "reference": "T-1"},
        {"user_id": person(1).upper()},
        {"user_id": person(1), "days": ["2024-07-30", DAYS[0]], "reference": "T-1"},
    ]
    write(built.folder / "r.jsonl", rows)
    taken = built("erase", "--from", "r.jsonl")
    names = taken.json["receipts"]
    assert (taken.code, len(set(names)), taken.json["references"]) == (0, 4, ["T-1", "T-1", None, "T-1"])
    assert taken.json["passed_over"] == [
        {"receipt": names[0], "days": ["2024-07-30"]},
        {"receipt": names[1], "days": ["2024-12-31"]},
        {"receipt": names[3], "days": ["2024-07-30"]},
    ]
    assert [row["line"] for row in taken.json["warnings"]] == [1, 3, 4]
    assert "are in passed_over" in taken.said and "Line(s) 1, 3, 4" in taken.said
    again = built("erase", "--from", "r.jsonl").json["receipts"]
    assert [again[at] for at in (0, 2, 3)] == [names[at] for at in (0, 2, 3)] and again[1] not in names
    states = {row["receipt"]: (row["state"], row["scope"]["through"]) for row in built("erasures").json}
    assert states[names[1]] == ("applied", "2024-12-31")
    assert states[names[2]][1] in (str(tomorrow), str(tomorrow + timedelta(days=1))), "no day: all there can be"

    early = built("receipt", "--reference", "T-1")
    assert (early.code, early.json["verified"]) == (3, False)
    assert [row["receipt"] for row in early.json["receipts"]] == [names[0], names[3]]
    assert built("flush-deletes").json["unverified"] == []
    done = built("receipt", "--reference", "T-1")
    assert (done.code, done.json["reference"], done.json["verified"]) == (0, "T-1", True)
    (built.folder / "one.json").write_text(json.dumps({**done.json["receipts"][0], "reference": "T-2"}))
    assert built("receipt", "--check", "one.json").code == 5
    assert built("receipt", "--reference", "T-9").code == 5
    kept = built("receipt", names[1])
    assert (kept.code, kept.json["state"], kept.json["reference"]) == (0, "verified", None)
    require_no_raw_id(built)


def test_one_person_may_be_asked_for_with_old_days_and_a_reference(built: Dpdau) -> None:
    asked = built("erase", "--user-id", person(1), "--days", "2024-07-30", "--days", DAYS[0], "--reference", "T-1")
    assert (asked.code, asked.json["references"]) == (0, ["T-1"])
    assert asked.json["passed_over"] == [{"receipt": asked.json["receipts"][0], "days": ["2024-07-30"]}]
    old = built("erase", "--user-id", person(1), "--through", "2024-07-30")
    assert old.json["passed_over"] == [{"receipt": old.json["receipts"][0], "days": ["2024-07-30"]}]
    for wrong in ("T 1", person(2), "x" * 65):
        refused = built("erase", "--user-id", person(2), "--reference", wrong)
        assert refused.code == 5 and wrong not in refused.said
    row = {"user_id": person(3), "op": "-", "day": DAYS[1], "metadata": {"days": ["2024-07-30", DAYS[2]]}}
    write(built.folder / "minus.jsonl", [row])
    taken = built("ingest", "--from", "minus.jsonl")
    (name,) = {asked["receipt"] for asked in built("erasures").json} - {*asked.json["receipts"], *old.json["receipts"]}
    assert taken.json["passed_over"] == [{"receipt": name, "days": ["2024-07-30"]}]
    assert "are in passed_over" in taken.said


def test_flush_deletes_repairs_older_files_and_says_which_and_a_check_says_so_until_then(built: Dpdau) -> None:
    live, before = built.folder / "data" / "activity", built.folder / "activity before"
    shutil.copytree(live, before)
    built("erase", "--user-id", person(1), "--through", DAYS[1])
    assert built("flush-deletes").json["older_files"] == {"repaired": [], "broken": []}
    shutil.rmtree(live)
    shutil.copytree(before, live)
    assert built("check", "no_older_files").code == 4
    flushed = built("flush-deletes")
    named = [path.relative_to(built.folder / "data").with_suffix("").as_posix() for path in sorted(live.rglob("*.p*"))]
    assert (flushed.code, flushed.json["older_files"]) == (0, {"repaired": named[:2], "broken": []})
    assert "2 file(s) were older" in flushed.said
    assert built("check", "no_older_files").code == 0

    shutil.rmtree(live / f"day={DAYS[2]}")
    broken = built("flush-deletes")
    assert (broken.code, broken.json["older_files"]) == (4, {"repaired": [], "broken": named[2:]})
    assert "newest copy" in broken.said


def test_a_bad_file_takes_nothing(dpdau: Dpdau) -> None:
    (dpdau.folder / "bad.csv").write_text(f"user_id,through\n{person(1)},{DAYS[0]}\n{person(2)},never\n")
    refused = dpdau("erase", "--from", "bad.csv")
    assert refused.code == 5
    assert "bad.csv has 1 bad row(s)" in refused.said and "line 3" in refused.said
    assert dpdau("erase", "--user-id", person(1), "--through", "2999-01-01").code == 5
    assert dpdau("erasures").json == []
    assert PLANTED not in dpdau.printed


@pytest.mark.slow
def test_the_guard_parks_more_people_than_it_lets_through_until_they_are_confirmed(dpdau: Dpdau) -> None:
    assert dpdau("ingest", "--from", "events.jsonl").code == 0
    assert dpdau("run", *WHOLE).json == {"days": 3, "dau_published": 3, "mau_published": 3, "restated": 0}
    write(dpdau.folder / "many.jsonl", [{"user_id": person(n), "through": DAYS[0]} for n in range(90)])
    parked = dpdau("erase", "--from", "many.jsonl")
    assert (parked.code, parked.json["parked"], parked.json["received"]) == (4, True, 90)
    (batch,) = parked.json["batches"]
    assert f"dpdau confirm {batch}" in parked.said and "--confirm" in parked.said
    assert dpdau("flush-deletes").json == {"verified": 0, "unverified": [], "days_rebuilt": 0, **NONE_OLD}

    confirmed = dpdau("confirm", batch)
    assert (confirmed.code, confirmed.json["confirmed"]) == (0, 90)
    assert [row["receipt"] for row in confirmed.json["erasures"]] == parked.json["receipts"]
    write(dpdau.folder / "more.jsonl", [{"user_id": person(n), "through": DAYS[0]} for n in range(100, 190)])
    assert dpdau("erase", "--from", "more.jsonl", "--confirm").json["parked"] is False
    write(dpdau.folder / "events.jsonl", [{"user_id": person(n), "op": "-", "day": DAYS[1]} for n in range(90)])
    taken = dpdau("ingest", "--from", "events.jsonl")
    assert taken.code == 0
    assert "90 removal(s)" in taken.said and "dpdau confirm" in taken.said
    states = [row["state"] for row in dpdau("erasures").json]
    assert states == ["received"] * 180 + ["parked"] * 90
    require_no_raw_id(dpdau)


def test_a_receipt_is_verified_by_reading_everything_back_and_names_what_is_left(built: Dpdau) -> None:
    kept = built("erase", "--user-id", person(1), "--days", DAYS[0], "--days", DAYS[2]).json["receipts"][0]
    gone = built("erase", "--user-id", person(2), "--through", DAYS[2]).json["receipts"][0]
    cancelled = built("cancel", kept)
    assert (cancelled.code, cancelled.json["cancelled"]) == (0, 1)
    assert cancelled.json["erasures"][0]["scope"] == {"through": DAYS[2], "days": [DAYS[0], DAYS[2]]}

    state = next((built.folder / "data" / "activity" / f"day={DAYS[0]}").iterdir())
    copy = built.folder / "data" / "before-the-migration.parquet"
    shutil.copy(state, copy)
    flushed = built("flush-deletes")
    assert (flushed.code, flushed.json) == (4, {"verified": 0, "unverified": [gone], "days_rebuilt": 3, **NONE_OLD})
    left = built("receipt", gone)
    assert (left.code, left.json["verified"]) == (4, False)
    assert left.json["survivors"] == [{"file": copy.name, "how": "the key is in the bytes"}]
    copy.unlink()
    assert built("flush-deletes").json == {"verified": 1, "unverified": [], "days_rebuilt": 0, **NONE_OLD}
    verified = built("receipt", gone)
    assert (verified.code, verified.json["state"], verified.json["survivors"]) == (0, "verified", [])
    refused = built("cancel", gone)
    assert refused.code == 4 and "cannot come back" in refused.said
    assert built("receipt", "no-such-receipt").code == 5
    require_no_raw_id(built)


@pytest.mark.slow
def test_after_a_rotation_only_the_new_secret_opens_the_store_and_old_receipts_stay_genuine(dpdau: Dpdau) -> None:
    assert dpdau("ingest", "--from", "events.jsonl").code == 0
    name = dpdau("erase", "--user-id", person(1)).json["receipts"][0]
    assert dpdau("flush-deletes").code == 0
    document = dpdau("receipt", name).json
    short = dpdau("rotate-salt", "--new-secret-from", "-", stdin="too-short")
    assert short.code == 2 and "32 characters" in short.said and "too-short" not in short.said
    (dpdau.folder / "new").write_text(NEW_SECRET + "\n")
    rotated = dpdau("rotate-salt", "--new-secret-from", "new")
    assert (rotated.code, rotated.json) == (0, {"rewrapped": True})
    assert "HASH_SALT_SECRET" in rotated.said

    assert dpdau("receipt", name).code == 2
    assert dpdau("receipt", name, HASH_SALT_SECRET=NEW_SECRET).json == document
    forged = {**document, "received_on": "2001-01-01"}
    for number, (shown, genuine) in enumerate(
        [(document, True), (without(document, "partitions"), True), (forged, False), ({}, False)]
    ):
        (dpdau.folder / f"{number}.json").write_text(json.dumps(shown))
        checked = dpdau("receipt", "--check", f"{number}.json", HASH_SALT_SECRET=NEW_SECRET)
        assert (checked.code, checked.json) == (0 if genuine else 5, {"genuine": genuine})
    assert SECRET not in dpdau.printed and NEW_SECRET not in dpdau.printed
    require_no_raw_id(dpdau)


def test_an_import_is_taken_back_until_it_is_folded_and_nothing_is_purged_unless_asked_for(dpdau: Dpdau) -> None:
    batch = dpdau("ingest", "--from", "events.jsonl").json["batch"]
    assert dpdau("discard", batch).json == {"discarded": batch}
    assert dpdau("discard", batch).code == 4
    off = dpdau("purge")
    assert off.code == 2 and "RETENTION_DAYS is not set" in off.said
    assert dpdau("purge", RETENTION_DAYS="60").json == {"purged_through": None}
    assert dpdau("rebuild", "--from", DAYS[0], "--to", "2999-01-01").code == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("erase",),
        ("erase", "--user-id", "anna", "--from", "requests.csv"),
        ("erase", "--user-id", "anna", "--through", DAYS[0], "--days", DAYS[0]),
        ("erase", "--from", "requests.csv", "--through", DAYS[0]),
        ("erase", "--from", "requests.csv", "--reference", "T-1"),
        ("receipt", "one", "--reference", "T-1"),
        ("erase", "--user-id", "anna", "--through", "soon"),
        ("confirm",),
        ("cancel",),
        ("erasures", "--state", "lost"),
        ("receipt",),
        ("receipt", "one", "--check", "file"),
        ("rotate-salt",),
        ("rotate-salt", "--new-secret-from", "no-such-file"),
        ("rebuild", "--from", DAYS[0]),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_opened(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        app(arguments)
