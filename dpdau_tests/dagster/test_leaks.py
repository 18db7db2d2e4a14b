"""Nothing that Dagster keeps, and nothing in the mart, says more than the published numbers do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from dpdau_assets.core.dates import days_between, epoch_of
from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.publication.release import read_alike
from dpdau_assets.core.publication.runs import steps
from dpdau_assets.core.sketches.exact import ExactEstimator
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.metadata import ALLOWED, reveal
from dpdau_assets.orchestration.names import BUILD_STATE
from dpdau_assets.orchestration.running import run_steps
from dpdau_tests.conftest import SECRET, prepare, put
from dpdau_tests.dagster.world import World, erase, stop_the_clock
from resources.dagster_instance import open_run
from resources.reading.event_files import event_file
from resources.settings_env import read_settings
from resources.store import open_store

FIRST, LAST = date(2025, 1, 30), date(2025, 2, 1)
COUNTED = {FIRST: 21_610, date(2025, 1, 31): 18_711, LAST: 15_813}
PLANTED = "planted-user-31337@example.org"
ERASED = "erased-user-16180@example.org"


@dataclass(frozen=True)
class Run:
    """A store whose days were published through Dagster, one user then erased, and the folder that Dagster kept."""

    store: Store
    erased_keys: list[int]
    home: Path
    printed: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("published")
    home = folder / "dagster"
    values = {"DATA_DIR": folder / "data", "HASH_SALT_SECRET": SECRET, "DAGSTER_HOME": home}
    with pytest.MonkeyPatch.context() as patch, open_printed(folder / "printed") as printed:
        for name, value in values.items():
            patch.setenv(name, str(value))
        stop_the_clock(patch, LAST + timedelta(days=2))
        store = open_store(read_settings())
        events = folder / "events.csv"
        people = (f"user {n},+,{day}\n" for day, count in COUNTED.items() for n in range(count))
        events.write_text(f"user_id,op,day\n{PLANTED},+,{FIRST}\n{ERASED},+,{FIRST}\n" + "".join(people))
        assert not ingest([event_file(events)], store).rejected
        prepare(store, days_between(date(2025, 1, 1), date(2025, 1, 27)))  # two runs of the job show what all do
        wanted = list(steps(FIRST, LAST, store.settings, store.accountant.processed()))
        with open_run(home) as instance:
            run_steps(wanted, build_definitions(store.settings), instance, lambda _: None)
            receipts = erase(store, ERASED)
            keys = list(store.erasures.ledger.keys_of(receipts)[receipts[0]].values())
            world = World(store, instance)
            world.run_until_idle()
            assert world.execute("check_store").success
            yield Run(store, keys, home, printed)


@contextmanager
def open_printed(path: Path) -> Iterator[Path]:
    """Everything that this process prints meanwhile, by file descriptor, so that no logger gets around it."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with path.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        try:
            yield path
        finally:
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)


def everything_shown(run: Run) -> bytes:
    files = [path for folder in (run.home, run.store.settings.data_dir / "mart") for path in folder.rglob("*")]
    return b"\n".join(path.read_bytes() for path in (run.printed, *files) if path.is_file())


def test_no_user_id_key_or_salt_reaches_dagsters_storage_or_the_mart(published: Run) -> None:
    shown = everything_shown(published)
    epoch = epoch_of(FIRST, 90)
    secret = published.store.state.salts.epoch_keys([epoch])[epoch].secret
    keys = published.store.state.activity.read(FIRST, epoch)
    assert keys is not None and len(keys) == 21_611
    texts = [PLANTED, "31337@", SECRET, secret.hex(), *(text for key in keys[:200] for text in (str(key), f"{key:x}"))]
    raw = [secret, *(int(key).to_bytes(8, order) for key in keys[:200] for order in ("little", "big"))]  # type: ignore[arg-type]
    assert [text for text in texts if text.encode() in shown] == []
    assert [number for number, secret_bytes in enumerate(raw) if secret_bytes in shown] == []


def _needles(keys: list[int]) -> Needles:
    return Needles(np.array(sorted(keys), dtype=np.uint64))


def test_an_erasure_leaves_neither_id_nor_key_in_dagsters_storage_or_the_mart(published: Run) -> None:
    shown = everything_shown(published)
    assert {erasure.state for erasure in published.store.erasures.ledger.erasures()} == {"verified"}
    assert (
        b"erase/rebuild/" in shown and b"2025-01-30" in shown
    )  # which days were rebuilt is shown, because the work needs it
    assert published.erased_keys and not len(_needles(published.erased_keys).found_in([shown]))
    assert [text for text in (ERASED, "16180@") if text.encode() in shown] == []


def test_no_exact_count_reaches_dagsters_storage_or_the_mart(published: Run) -> None:
    """Counts of three days; a noise of exactly 0 may show one of them, as it does once in thirty days, and not all."""
    keys = [ReleaseKey("dau", 1, day) for day in COUNTED]
    exact = list(dict(read_alike(keys, ExactEstimator(), published.store)).values())
    before_erasure = exact[0] + 1
    numbers = {release.noisy_value for release in published.store.accountant.releases()}
    hidden = [count for count in (before_erasure, *exact) if count not in numbers]
    assert exact == [21_611, 18_711, 15_813] and hidden
    process = rb"(?<=pid: )%d\b|(?<= - )%d(?= - )" % (os.getpid(), os.getpid())  # which may be any such number
    shown = re.sub(process, b"", everything_shown(published))
    shown = re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"", shown)  # as may a part of a run's name
    assert [count for count in hidden if re.search(rb"(?<![0-9.])%d(?:\.0*)?(?![0-9.])" % count, shown)] == []


def test_the_search_finds_what_is_there(published: Run) -> None:
    """The check can fail: a published number does stand in both places."""
    number = published.store.accountant.releases("dau")[0].noisy_value
    assert str(number).encode() in everything_shown(published)


def test_every_metadata_key_of_a_whole_run_is_on_the_allow_list(published: Run) -> None:
    with dg.DagsterInstance.get() as instance:
        materialised = instance.fetch_materializations(dg.AssetKey("mau_release"), limit=10).records
        names = [
            name
            for key in instance.all_asset_keys()
            for record in instance.fetch_materializations(key, limit=100).records
            for name in (record.asset_materialization.metadata if record.asset_materialization else {})
        ]
    assert len(materialised) == 3
    assert names and set(names) <= ALLOWED


def test_a_metadata_key_that_is_not_on_the_allow_list_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="row_count"):
        reveal({"estimate": 1.0, "dagster/row_count": 5})


def test_a_failed_step_leaves_no_secret_in_the_event_log(published: Run, make_store: Callable[..., Store]) -> None:
    """State of another store under this one's name: the refusal is logged, and says nothing of either's keys."""
    other = make_store("other")
    put(other, [(PLANTED, date(2025, 2, 2))])
    prepare(other, [date(2025, 2, 2)])
    (foreign,) = (other.settings.data_dir / "activity" / "day=2025-02-02").iterdir()
    own = published.store.settings.data_dir / "activity" / "day=2025-02-02" / foreign.name
    own.parent.mkdir()
    own.write_bytes(foreign.read_bytes())
    definitions = build_definitions(published.store.settings)
    with open_run(published.home) as instance, pytest.raises(dg.Failure):
        definitions.resolve_job_def(BUILD_STATE).execute_in_process(partition_key="2025-02-02", instance=instance)
    shown = everything_shown(published)
    assert b"another key of salt epoch" in shown
    assert PLANTED.encode() not in shown and SECRET.encode() not in shown
