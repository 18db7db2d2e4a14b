"""What the tests share: a store in a temporary folder, with the real adapters."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from fractions import Fraction
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from sqlalchemy import select

from dpdau_assets.core.events import Limits, Row
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import RowScan, ingest_scan
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.activity import process_days
from dpdau_assets.core.state.day_sketch import refresh
from dpdau_assets.core.state.limits import last_day
from dpdau_tests.support.connections import closed_at_the_end, statements_compiled_once
from dpdau_tests.support.fast_folder import IN_MEMORY, has_room
from dpdau_tests.support.lengths import LENGTH, seed
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.postgres import schema_url
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.times import Recorder
from resources.ledger_sql import salts, schema
from resources.ledger_sql.database import Database
from resources.settings_env import Environment
from resources.store import open_store

Environment.model_config["env_file"] = None  # a developer's own .env is no business of the tests


class FixedClock:
    """A day that does not move."""

    def __init__(self, today: date) -> None:
        self._today = today

    def today(self) -> date:
        return self._today


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new, empty database of each kind that the ledger can live in."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.sqlite"
    else:
        with schema_url() as url:
            yield url


def everything_in(database: Database) -> bytes:
    """Every value of every table, as text and, if it is bytes, as they are."""
    with database.read() as connection:
        stored = [tuple(row) for table in schema.metadata.sorted_tables for row in connection.execute(select(table))]
    return repr(stored).encode() + b"".join(value for row in stored for value in row if isinstance(value, bytes))


_INDEPENDENT = {"mau_mechanism": "gaussian", "epsilon_mau": Fraction(37, 100)}  # 60 of them fit the cap
SKETCHES: dict[str, dict[str, object]] = {
    "set": {},
    "theta": {"sketch_impl": "theta", "dau_theta0": Fraction(1), "mau_theta0": Fraction(1)},
    "kmv": {"sketch_impl": "kmv", "dau_theta0": Fraction(1), "mau_theta0": Fraction(1), **_INDEPENDENT},
    "hllpp": {"sketch_impl": "hllpp", "dau_level": 1, "mau_level": 1, **_INDEPENDENT},
}
"""Settings of each kind under which every one of a few people counts one."""


def pytest_configure(config: pytest.Config) -> None:
    """Temporary folders are in memory where there is room: what is tested syncs thousands of times.

    All that hypothesis chooses follows from DPDAU_SEED, but for the tests whose examples are always the same. A store
    that the shell is set up for, by exported settings, is none of the tests' business.
    """
    for name in Environment.model_fields:
        os.environ.pop(name.upper(), None)
    if hypothesis.settings.get_current_profile_name() in ("default", "ci"):  # and no other was asked for
        hypothesis.settings.register_profile("dpdau", deadline=None)  # no test asserts a time
        hypothesis.settings.load_profile("dpdau")
    if has_room():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))
    for library in ("OPENBLAS", "OMP"):  # in each worker: a few small matrices keep no second core from anybody
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = str(seed())
    if target := os.environ.get("DPDAU_TIMES"):
        config.pluginmanager.register(Recorder(Path(target)))


def pytest_report_header() -> str:
    """What is needed to choose the same again."""
    return f"DPDAU_LENGTH={LENGTH} DPDAU_SEED={seed()}"


def pytest_collection_finish() -> None:
    """absl, which dp-accounting brings, holds what was stderr when it was imported: a file of pytest's own. It closes
    that as soon as Dagster configures logging while a test has put another stderr in its place.
    """
    absl = sys.modules.get("absl.logging")
    if absl is not None:
        absl.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `every_sketch` run with every SKETCH_IMPL: in CI and soak, or `since="soak"` in a soak alone.

    A test's own marker goes before its module's. With `set` they run in `make test`, if nothing else is said.
    """
    marker = metafunc.definition.get_closest_marker("every_sketch")
    if marker is None or "sketch_settings" not in metafunc.fixturenames:
        return
    in_ci = marker.kwargs.get("since", "ci") == "ci"
    others = pytest.mark.slow(weight=1 if in_ci else 0.1)  # there are many of them
    kinds = [
        pytest.param(SKETCHES[kind], marks=() if kind == "set" else others, id=kind)
        for kind in SKETCHES
        if kind == "set" or in_ci or LENGTH == "soak"
    ]
    metafunc.parametrize("sketch_settings", kinds)


@pytest.fixture
def sketch_settings() -> dict[str, object]:
    """What `make_store` adds to all settings."""
    return {}


@pytest.fixture(scope="session", autouse=True)
def _statements_compiled_once() -> Iterator[None]:
    with statements_compiled_once():
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """What the recipes of this run have made, for all of its workers."""
    own = tmp_path_factory.getbasetemp()
    return Prepared((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "prepared")


Recipe = Callable[[Store], object]
"""Fills an empty store."""


def opened(folder: Path, today: date, **settings: object) -> Store:
    """The store in this folder, made if there is none, on this day."""
    open_store.cache_clear()
    chosen = {"hash_salt_secret": SECRET, **settings}
    return replace(open_store(Settings(data_dir=folder, **chosen)), clock=FixedClock(today))


def copied(prepared: Prepared, recipe: Recipe, target: Path, today: date, **settings: object) -> Store:
    """What the recipe makes under these settings and on this day, in a folder of the test's own. It runs once."""

    def fill(folder: Path) -> None:
        with closed_at_the_end():
            recipe(opened(folder, today, **settings))

    told = f"{recipe.__module__}.{recipe.__qualname__} {today} {sorted(settings.items())}"
    return opened(prepared.copy(told, fill, target), today, **settings)


@pytest.fixture
def make_store(
    tmp_path: Path, sketch_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, prepared: Prepared
) -> Iterator[Callable[..., Store]]:
    """Opens stores with the given settings; each call with the same `name` opens the same one anew.

    With a `recipe`, a function that fills a store, it begins as a copy of what that makes under the same settings and
    on the same day; see `support.stores`. The recipe runs once, however many tests name it.
    """
    numbers = count()
    if (
        sketch_settings.get("sketch_impl") == "hllpp"
    ):  # two of ten people share a register with odds of 1 in 360; not with these salts
        drawn = SimpleNamespace(token_bytes=lambda size: sha256(b"%d" % next(numbers)).digest()[:size])
        monkeypatch.setattr(salts, "secrets", drawn)

    def make(
        name: str = "store", today: date = date(2030, 1, 1), recipe: Recipe | None = None, **settings: object
    ) -> Store:
        chosen = {**sketch_settings, **settings}
        if recipe is None:
            return opened(tmp_path / name, today, **chosen)
        store = copied(prepared, recipe, tmp_path / name, today, **chosen)
        if sketch_settings.get("sketch_impl") == "hllpp":
            deque(islice(numbers, 100), maxlen=0)  # its salts are not made once more for epochs to come
        return store

    yield make
    open_store.cache_clear()


def put(store: Store, rows: Iterable[tuple]) -> None:
    """Ingest events given as (user_id, day, op, listed days) through the real path, from memory."""
    settings = store.settings
    limits = Limits(settings.start_date, last_day(store.clock), ZoneInfo(settings.timezone))
    scan = RowScan((("test", number, _row(*row)) for number, row in enumerate(rows, 1)), limits)
    assert not list(scan.rejected()), "a test's own events are valid"
    ingest_scan(scan, store, progress=lambda _: None)


def _row(user_id: str, day: date, op: str = "+", days: tuple[date, ...] | None = None) -> Row:
    listed = None if days is None else tuple(found.isoformat() for found in days)
    return Row(user_id, op, day.isoformat(), None, listed)


def prepare(store: Store, days: list[date]) -> None:
    """State and sketches of these days, as the assets build them."""
    process_days(days, store)
    refresh(days, store)


@contextmanager
def folding(store: Store) -> Iterator[threading.Thread]:
    """Meanwhile another thread holds the state's lock, as a fold or a release does for minutes."""
    held, done = threading.Event(), threading.Event()

    def fold() -> None:
        with store.state.activity.lock():
            held.set()
            done.wait(60)

    thread = threading.Thread(target=fold)
    thread.start()
    assert held.wait(60)
    try:
        yield thread
    finally:
        done.set()
        thread.join()


class Silent:
    """Noise that is always 0, so that a release shows the statistic it was made from."""

    private = False

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        return [0] * draws

    def laplace(self, scale: float, draws: int = 1) -> list[int]:
        return [0] * draws


def silent(store: Store) -> Store:
    """The store without noise."""
    return replace(store, noise=Silent())
