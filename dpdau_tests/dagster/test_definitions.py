"""What Dagster is told: the graph, its partitions, and that it loads where nothing is ready yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from runpy import run_path

import dagster as dg
import pytest

from dpdau_assets import definitions
from dpdau_assets.core.dates import days_between
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.runs import BUILD, DAU, MAU, REPORTS, steps
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_tests.conftest import prepare, put
from dpdau_tests.dagster.world import definitions_under, resources_of

START = date(2025, 1, 1)


def materialise(store: Store, key: str, day: date | None, instance: dg.DagsterInstance) -> dg.DataVersion:
    definitions = definitions_under(store.settings)
    result = dg.materialize(
        [definitions.get_assets_def(key), *_specs(definitions, key)],
        selection=[key],
        partition_key=day.isoformat() if day else None,
        resources=resources_of(store),
        instance=instance,
    )
    (event,) = result.asset_materializations_for_node(key)
    return dg.DataVersion((event.tags or {})["dagster/data_version"])


def _specs(definitions: dg.Definitions, key: str) -> list[dg.AssetSpec]:
    others = (spec for spec in definitions.resolve_all_asset_specs() if spec.key != dg.AssetKey(key))
    return [dg.AssetSpec(spec.key, partitions_def=spec.partitions_def) for spec in others]


def test_the_definitions_are_loadable() -> None:
    dg.Definitions.validate_loadable(build_definitions(Settings()))


def test_the_code_location_loads_without_data_ledger_or_secret(tmp_path: Path) -> None:
    code = "import dpdau_assets.definitions as d; print(len(list(d.defs.resolve_all_asset_specs())))"
    environment = {"PATH": "/usr/bin:/bin", "DATA_DIR": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path.cwd())
    assert (done.returncode, done.stdout.strip()) == (0, "9"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_stops_the_code_location_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DAU_MECHANISM", "laplace")
    with pytest.raises(BadSetting, match="2025-01-11"):  # the eleventh day at 0.3 a day against a cap of 3.0
        run_path(str(Path(definitions.__file__)), run_name="dpdau_assets.definitions")


def test_mau_partitions_begin_when_the_first_window_is_whole() -> None:
    definitions = build_definitions(Settings())
    days = definitions.get_assets_def("mau_release").partitions_def
    assert days is not None and days.get_first_partition_key() == "2025-01-30"


def test_a_mau_day_depends_on_exactly_the_thirty_days_of_its_window() -> None:
    graph = build_definitions(Settings()).resolve_asset_graph()
    upstream = graph.get(dg.AssetKey("mau_release")).partition_mappings
    mapping = upstream[dg.AssetKey("day_sketch")]
    assert isinstance(mapping, dg.TimeWindowPartitionMapping)
    assert (mapping.start_offset, mapping.end_offset) == (-29, 0)


def test_every_asset_has_group_kind_owner_description_and_code_version() -> None:
    for spec in build_definitions(Settings()).resolve_all_asset_specs():
        assert all([spec.group_name, spec.kinds, spec.owners, spec.description, spec.code_version]), spec.key


def test_each_day_has_a_data_version_of_its_own_content(make_store: Callable[..., Store]) -> None:
    store = make_store()
    put(store, [("someone", START)])
    with dg.DagsterInstance.ephemeral() as instance:
        first = materialise(store, "activity", START, instance)
        same = materialise(store, "activity", START, instance)
        empty = materialise(store, "activity", date(2025, 1, 2), instance)
        put(store, [("someone else", START)])
        grown = materialise(store, "activity", START, instance)
    assert first == same
    assert len({first, empty, grown}) == 3


def test_data_versions_are_keyed_so_equal_stores_have_different_ones(make_store: Callable[..., Store]) -> None:
    versions = []
    for name in ("one", "two"):
        store = make_store(name)
        put(store, [("someone", START)])
        with dg.DagsterInstance.ephemeral() as instance:
            versions.append(materialise(store, "activity", START, instance))
    assert versions[0] != versions[1]


def test_materialising_a_release_again_returns_the_stored_number(make_store: Callable[..., Store]) -> None:
    store = make_store()
    prepare(store, [START])
    with dg.DagsterInstance.ephemeral() as instance:
        versions = {materialise(store, "dau_release", START, instance) for _ in range(3)}
    assert len(versions) == 1
    assert len(store.accountant.releases()) == 1


def test_a_run_of_days_builds_the_state_that_its_first_window_reaches_back_to() -> None:
    wanted = list(steps(date(2025, 3, 1), date(2025, 3, 2), Settings()))
    assert (wanted[0].kind, list(wanted[0].days)) == (BUILD, days_between(date(2025, 1, 31), date(2025, 3, 2)))
    tail = [(step.kind, step.day and step.day.day) for step in wanted][-5:]
    assert tail == [(DAU, 1), (MAU, 1), (DAU, 2), (MAU, 2), (REPORTS, None)]


def test_a_run_before_the_first_whole_window_publishes_dau_alone() -> None:
    wanted = list(steps(START, date(2025, 1, 3), Settings()))
    assert {step.kind for step in wanted} == {BUILD, DAU, REPORTS}


@pytest.mark.parametrize("metric", ["dau", "mau"])
def test_no_release_job_runs_by_itself(metric: str) -> None:
    spec = next(
        spec
        for spec in build_definitions(Settings()).resolve_all_asset_specs()
        if spec.key == dg.AssetKey(f"{metric}_release")
    )
    assert spec.automation_condition is None


def test_a_run_over_a_range_of_days_of_state_fails_instead_of_reporting_one_day_as_many(
    make_store: Callable[..., Store],
) -> None:
    store = make_store()
    definitions = build_definitions(store.settings)
    tags = {"dagster/asset_partition_range_start": "2025-01-01", "dagster/asset_partition_range_end": "2025-01-02"}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [definitions.get_assets_def("activity"), *_specs(definitions, "activity")],
            selection=["activity"],
            tags=tags,
            resources=resources_of(store),
            instance=instance,
            raise_on_error=False,
        )
    assert not result.success
    assert store.accountant.processed() == frozenset()
