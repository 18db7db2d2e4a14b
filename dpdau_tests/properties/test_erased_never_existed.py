"""Erased is as never existed: the live bytes of a history with her erased are those of the history without her.

Two stores share their salts, so that equal sets are equal bytes. One lives through everything; the other is told the
same, less all of her, and is the reference.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state import activity
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_tests.conftest import SECRET, FixedClock, put
from dpdau_tests.support.lengths import at_length
from resources.ledger_sql.erasures import SqlErasures
from resources.ledger_sql.rebuilds import SqlRebuilds
from resources.ledger_sql.receipts import SqlReceipts
from resources.store import open_store

START = date(2025, 3, 20)  # with epochs of 90 days each day has one, with 30 two
DAYS = days_between(START, START + timedelta(days=3))
TODAY = DAYS[-1] + timedelta(days=1)
MANY = at_length(ci=80, soak=1_000)

# So small that one user more or less shows: half of the users sampled, two keys kept, four registers.
# A change of settings comes with a restart; it must not mark the days from which she was erased.
KINDS: dict[str, list[dict[str, Any]]] = {
    "set": [{}],
    "theta": [
        {"sketch_impl": "theta", "dau_theta0": Fraction(1), "mau_theta0": Fraction(1, 4)},
        {"sketch_impl": "theta", "dau_theta0": Fraction(1, 2), "mau_theta0": Fraction(1, 4)},
    ],
    "kmv": [
        {"sketch_impl": "kmv", "kmv_k": k, "dau_theta0": Fraction(1), "mau_theta0": Fraction(1, 2)} for k in (2, 3)
    ],
    "hllpp": [{"sketch_impl": "hllpp", "hll_registers": m, "dau_level": 1, "mau_level": 2} for m in (4, 8)],
}

day = st.sampled_from(DAYS)
others = st.tuples(st.just("put"), st.sampled_from("abc"), day)
hers = st.tuples(st.just("put"), st.just("her"), day)
events = st.tuples(st.just("batch"), st.lists(st.one_of(others, hers), min_size=1, max_size=6))
sealing = st.tuples(st.just("seal"), day)
folding = st.tuples(st.just("fold"), st.lists(day, max_size=3))
settling = st.just(("settle",))
replay = st.just(("replay",))
restart = st.just(("restart",))
killed = st.tuples(st.just("killed"), st.integers(0, 12))
other_erasure = st.tuples(st.just("erase"), st.sampled_from("abc"), day)
step = st.one_of(events, events, events, sealing, folding, settling, replay, restart, killed, other_erasure)


def histories(longest: int) -> st.SearchStrategy[tuple]:
    """Steps, the days of a salt epoch, and whether the erasure comes as an event.

    In two of three she comes on every day at once, and in one of them too late for one of these days.
    """
    at_once = ("batch", [("put", "her", name) for name in DAYS])
    begun = [[], [at_once], [("seal", DAYS[0]), at_once, ("fold", DAYS)]]
    steps = st.builds(list.__add__, st.sampled_from(begun), st.lists(step, min_size=2, max_size=longest))
    return st.tuples(steps, st.sampled_from([30, 90]), st.booleans())


COMMITS = (
    (SqlRebuilds, "mark"),
    (SqlErasures, "begin_applying"),
    (SqlErasures, "mark_applied"),
    (SqlReceipts, "append"),
)


class Killed(BaseException):
    """Stands for the process that dies here; nothing in the code catches it."""


@contextmanager
def killed_at(place: int) -> Iterator[None]:
    """Die at the n-th write, unlink or commit that makes anything durable."""
    seen = 0

    def counting(real: Callable) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            nonlocal seen
            if seen == place:
                raise Killed
            seen += 1
            return real(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counting(os.replace))
        patch.setattr(Path, "replace", counting(Path.replace))
        patch.setattr(Path, "unlink", counting(Path.unlink))
        patch.setattr(activity, "_create_missing", counting(activity._create_missing))
        for owner, name in COMMITS:
            patch.setattr(owner, name, counting(getattr(owner, name)))
        try:
            yield
        except Killed:
            return


class Life:
    """A store, and what it was told so far."""

    def __init__(self, root: Path, rotation_days: int, kind: str = "set") -> None:
        settings = Settings(
            data_dir=root,
            hash_salt_secret=SECRET,
            start_date=START,
            hash_salt_rotation_days=rotation_days,
            mau_mechanism="gaussian",
        )
        self._settings = cycle(replace(settings, **chosen) for chosen in KINDS[kind])
        self._told: list[tuple[str, date]] = []
        self.restart()

    def restart(self) -> None:
        """With the kind's next settings, if it has several."""
        open_store.cache_clear()
        self.store: Store = replace(open_store(next(self._settings)), clock=FixedClock(TODAY))

    def put(self, rows: list[tuple[str, date]]) -> None:
        self._told += rows
        put(self.store, rows)

    def replay(self) -> None:
        put(self.store, self._told)

    def live_bytes(self) -> dict[str, bytes]:
        root = self.store.settings.data_dir
        folders = ("activity", "late", "sketches", "inbox")
        files = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def live(history: list[tuple], life: Life, skip: str | None) -> None:
    """Tell the store the history, less all of the one to skip."""
    for kind, *rest in history:
        store = life.store
        match kind:
            case "batch":
                life.put([(user, name) for _, user, name in rest[0] if user != skip])
            case "seal":
                process_days([rest[0]], store)  # what a release does: only processed days are ever sealed
                store.accountant.seal([rest[0]])
            case "fold":
                process_days(rest[0], store)
                refresh(rest[0], store)
            case "settle":
                apply_and_verify(store)
            case "replay":
                life.replay()
            case "restart":
                life.restart()
            case "erase" if rest[0] != skip:
                request([Event(rest[0], "-", rest[1])], store)
            case "killed":
                with killed_at(rest[0]):
                    apply_and_verify(store)
                life.restart()


def ended(life: Life) -> dict[str, bytes]:
    """Everything folded, applied and rebuilt; the bytes of all that lives."""
    process_days(DAYS, life.store)
    apply_and_verify(life.store)
    refresh(DAYS, life.store)
    return life.live_bytes()


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: these stores need not outlive the machine."""
    shared = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    yield root
    shutil.rmtree(root)


def empty_store(root: Path, rotation_days: int, kind: str) -> Path:
    """The store of which both lives are copies: without the same keys no bytes could be equal."""
    folder = root / f"empty, {rotation_days} days"
    if not folder.exists():
        first = epoch_of(START, rotation_days)
        Life(folder, rotation_days, kind).store.state.salts.epoch_keys(range(first, first + 5))
    return folder


def check(history: list[tuple], rotation_days: int, as_event: bool, root: Path, kind: str = "set") -> None:
    for name in ("a", "b"):
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(empty_store(root, rotation_days, kind), root / name)
    with_her, without_her = (Life(root / name, rotation_days, kind) for name in ("a", "b"))
    for part in (0, 1):
        half = history[part * len(history) // 2 : (part + 1) * len(history) // 2]
        live(half, with_her, skip=None)
        if part == 0 and as_event:
            put(with_her.store, [("her", DAYS[-1], "-")])
        elif part == 0:
            request([Event("her", "-", DAYS[-1])], with_her.store)
        live(half, without_her, skip="her")
    state = ended(with_her)
    assert state == ended(without_her)


def test_the_live_bytes_are_those_of_the_history_in_which_she_never_was(memory: Path) -> None:
    look_at(24, memory / "few", longest=6)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_in_many_histories_the_live_bytes_are_those_in_which_she_never_was(part: int, memory: Path) -> None:
    look_at(MANY // 4, memory / str(part))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["theta", "kmv", "hllpp"])
def test_the_bytes_of_every_sketch_are_those_of_the_history_in_which_she_never_was(kind: str, memory: Path) -> None:
    look_at(at_length(ci=10, soak=300), memory / kind, kind)


def look_at(examples: int, root: Path, kind: str = "set", longest: int = 8) -> None:
    """Random histories; in several tests, so that two cores can share them."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(history=histories(longest))
    def holds(history: tuple) -> None:
        check(*history, root, kind)

    holds()


def test_the_comparison_notices_her(memory: Path) -> None:
    """The check can fail: without the erasure the bytes differ."""
    root = memory / "noticed"
    life = Life(root / "a", 90)
    life.store.state.salts.epoch_keys(range(200, 250))
    shutil.copytree(root / "a", root / "b")
    life.put([("her", START), ("a", START)])
    state = ended(life)
    other = Life(root / "b", 90)
    other.put([("a", START)])
    assert state.keys() == (without := ended(other)).keys() and state != without
