"""dpdau beside a team's own project, which happens to use the same names for other things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_file

from dpdau_assets.core.dates import days_between
from dpdau_assets.core.erasure.requests import request
from dpdau_assets.core.events import Event
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.completeness import complete_all
from dpdau_assets.core.settings import Settings
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.project import ASSETS
from dpdau_tests.conftest import SECRET, put
from dpdau_tests.dagster.world import stop_the_clock
from dpdau_tests.support.project import PROJECT
from resources.messages.messages import Messages
from resources.settings_env import read_settings
from resources.store import open_store

START = date(2025, 1, 1)
DAYS = days_between(START, date(2025, 1, 4))
TODAY = date(2025, 1, 6)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
TAKEN = ("activity", "day_sketch", "dau_release", "active_users", "report")


class Theirs(dg.ConfigurableResource):
    """A resource of the other team's: nothing that dpdau could use."""

    word: str = "theirs"


def a_teams_project(seen: list[str]) -> dg.Definitions:
    """Assets, checks, jobs, ops, schedules, sensors and resources with the names that ours have without a prefix."""

    def asset(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, group_name="state", pool="state")
        def made(accountant: Theirs, state: Theirs, mart: Theirs) -> None:
            seen.append(f"{name} {accountant.word} {state.word} {mart.word}")

        return made

    @dg.asset_check(asset="report", name="ledger_holds")
    def ledger_holds(mart: Theirs) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=mart.word == "theirs")

    @dg.op
    def take_landed_days(events: Theirs) -> None:
        seen.append(f"taken {events.word}")

    @dg.op
    def refresh_reports() -> None:
        raise ValueError("of the team's own, and no business of ours")

    @dg.job
    def take_landed() -> None:
        take_landed_days()

    @dg.job
    def publish_due() -> None:
        refresh_reports()

    @dg.sensor(job=take_landed)
    def inbox_sensor(events: Theirs) -> dg.SkipReason:
        return dg.SkipReason(events.word)

    return dg.Definitions(
        assets=[asset(name) for name in TAKEN],
        asset_checks=[ledger_holds],
        jobs=[take_landed, publish_due, dg.define_asset_job("build_state", selection=list(TAKEN))],
        schedules=[dg.ScheduleDefinition(name="publish_due_hourly", job=publish_due, cron_schedule="0 1 * * *")],
        sensors=[inbox_sensor],
        resources={name: Theirs() for name in ("accountant", "state", "events", "mart", "duckdb", "alerts")},
        executor=dg.multiprocess_executor,
    )


@dataclass
class Both:
    """Two projects in one: what was merged, an instance, our store, and what the team's steps have seen."""

    merged: dg.Definitions
    instance: dg.DagsterInstance
    store: Store
    seen: list[str]

    def execute(self, job: str, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        return self.merged.resolve_job_def(job).execute_in_process(
            instance=self.instance, run_config={**(config or {}), **QUIET}, raise_on_error=False
        )

    def partitions(self, *path: str) -> set[str]:
        return set(self.instance.get_materialized_partitions(dg.AssetKey(list(path))))

    def tick(self, sensor: str, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate a sensor as the daemon does: with the resources that the repository has, and nothing handed in."""
        repository = self.merged.get_repository_def()
        definition = repository.get_sensor_def(sensor)
        with dg.build_sensor_context(
            self.instance, cursor, resources=repository.get_top_level_resources(), definitions=self.merged
        ) as context:
            done = definition(context)
        assert isinstance(done, dg.SensorResult)
        return done

    def launch(self, done: dg.SensorResult) -> list[str]:
        """Tell what a tick found, and run what it asked for; the jobs."""
        for event in done.asset_events:
            self.instance.report_runless_asset_event(event)
        for wanted in done.run_requests or []:
            assert wanted.job_name and self.execute(wanted.job_name, dict(wanted.run_config)).success
        return [str(wanted.job_name) for wanted in done.run_requests or []]


@pytest.fixture
def both(instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    stop_the_clock(monkeypatch, TODAY)
    for name, value in {
        "DATA_DIR": str(tmp_path / "data"),
        "LANDING_DIR": str(tmp_path / "landing"),
        "HASH_SALT_SECRET": SECRET,
        "DAGSTER_HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "landing").mkdir()
    seen: list[str] = []
    settings = read_settings()
    merged = dg.Definitions.merge(a_teams_project(seen), build_definitions(settings, prefix="dpdau"))
    dg.Definitions.validate_loadable(merged)
    yield Both(merged, instance, open_store(settings), seen)
    open_store.cache_clear()


def names_of(definitions: dg.Definitions) -> dict[str, set[str]]:
    """Every name of which Dagster wants one each."""
    repository = definitions.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    return {
        "assets": {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()},
        "checks": {str(key.asset_key) + key.name for key in definitions.resolve_asset_graph().asset_check_keys},
        "jobs": {job.name for job in jobs},
        "ops": {node.definition.name for job in jobs for node in job.nodes},
        "schedules": {definition.name for definition in repository.schedule_defs},
        "sensors": {definition.name for definition in repository.sensor_defs},
        "resources": set(repository.get_top_level_resources()),
    }


def test_under_a_prefix_no_name_is_one_that_it_has_without() -> None:
    alone, prefixed = names_of(build_definitions(Settings())), names_of(build_definitions(Settings(), "dpdau"))
    for kind in alone:
        assert alone[kind] and len(alone[kind]) == len(prefixed[kind]), kind
        assert not alone[kind] & prefixed[kind], kind
    assert {"take_landed", "publish_due", "check_store"} < alone["jobs"] and "take_landed_days" in alone["ops"]
    assert alone["sensors"] == {"inbox_sensor", "erasure_sensor", "alert_sensor"}
    assert prefixed["assets"] == {f"dpdau/{name}" for name in ASSETS}
    assert prefixed["jobs"] == {f"dpdau_{name}" for name in alone["jobs"]}


def test_both_projects_materialise_each_with_its_own_resources(both: Both) -> None:
    put(both.store, [(f"user {n}", day) for day in DAYS for n in range(3)])
    complete_all(DAYS, both.store)
    assert both.execute("dpdau_publish_due").success
    published = {str(day) for day in DAYS}
    assert {str(release.key.day) for release in both.store.accountant.releases("dau")} == published
    for asset in ("erasures", "activity", "day_sketch", "dau_release"):
        assert both.partitions("dpdau", asset) == published, asset
    assert both.instance.get_latest_materialization_event(dg.AssetKey(["dpdau", "report"]))
    assert not any(both.instance.get_latest_materialization_event(dg.AssetKey(name)) for name in TAKEN)
    assert both.execute("build_state").success
    assert sorted(both.seen) == sorted(f"{name} theirs theirs theirs" for name in TAKEN)
    assert both.execute("dpdau_check_store").success
    held = both.instance.event_log_storage.get_asset_check_execution_history
    assert held(dg.AssetCheckKey(dg.AssetKey(["dpdau", "report"]), "ledger_holds"), limit=1)


def test_a_day_is_materialised_from_its_own_upstream_and_again_without_a_new_number(both: Both) -> None:
    put(both.store, [("somebody", START)])
    keys = [dg.AssetKey(["dpdau", name]) for name in ("erasures", "activity", "day_sketch", "dau_release")]
    job = both.merged.get_implicit_global_asset_job_def()
    for _ in range(2):
        assert job.execute_in_process(
            instance=both.instance, asset_selection=keys, partition_key=str(START), run_config=QUIET
        ).success
    (release,) = both.store.accountant.releases()
    assert release.key.day == START
    assert both.partitions("dpdau", "dau_release") == {str(START)} and both.partitions("dau_release") == set()


def test_what_lands_and_who_is_erased_reach_our_days_and_jobs(both: Both, tmp_path: Path) -> None:
    folder = tmp_path / "landing" / f"day={START}"
    folder.mkdir()
    (folder / "part.csv").write_text("user_id,op,day\n" + "".join(f"user {n},+,{START}\n" for n in range(3)))
    (folder / "_SUCCESS").touch()
    assert both.launch(both.tick("dpdau_inbox_sensor")) == ["dpdau_take_landed"]
    assert both.launch(both.tick("dpdau_inbox_sensor")) == ["dpdau_rebuild_days"]
    request([Event("user 1", "-", START)], both.store)
    done = both.tick("dpdau_erasure_sensor")
    assert {event.asset_key.path[0] for event in done.asset_events} == {"dpdau"}
    assert both.launch(done) == ["dpdau_rebuild_days"]
    assert both.launch(both.tick("dpdau_erasure_sensor", done.cursor)) == ["dpdau_verify_erasures"]
    assert {erasure.state for erasure in both.store.erasures.ledger.erasures()} == {"verified"}
    assert both.partitions("dpdau", "erasures") == both.partitions("dpdau", "activity") == {str(START)}


def test_people_are_told_of_our_failed_runs_and_of_none_of_the_teams(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Messages, "send", lambda self, alert, once=None: told.append(alert.text))
    cursor = both.tick("dpdau_alert_sensor").cursor
    assert not both.execute("publish_due").success  # theirs
    wrong = {"ops": {"dpdau_take_landed_days": {"config": {"days": ["no day"]}}}}
    assert not both.execute("dpdau_take_landed", wrong).success
    both.tick("dpdau_alert_sensor", cursor)
    assert [text.partition(" has failed")[0] for text in told] == ["dpdau_take_landed"]


def test_the_snippet_of_the_docs_loads_as_dagster_finds_it(both: Both, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "dagster.md").read_text(), re.DOTALL)
    file = tmp_path / "our_project.py"
    file.write_text(snippet)
    (target,) = loadable_targets_from_python_file(str(file))
    definitions = target.target_definition
    assert isinstance(definitions, dg.Definitions)
    dg.Definitions.validate_loadable(definitions)
    node = definitions.resolve_asset_graph().get(dg.AssetKey("weekly_letter"))
    assert node.parent_keys == {dg.AssetKey(["dpdau", "active_users"])}
    assert definitions.resolve_asset_graph().get(dg.AssetKey(["dpdau", "active_users"])).is_materializable


def test_two_stores_with_the_same_days_have_runs_of_their_own(both: Both, tmp_path: Path) -> None:
    """The names of tasks tell which project's they are: else one's run would count as an attempt of the other."""
    settings = read_settings({"DATA_DIR": str(tmp_path / "second")})
    second = dg.Definitions.merge(both.merged, build_definitions(settings, prefix="second"))
    other = Both(second, both.instance, open_store(settings), [])
    for project in (both, other):
        put(project.store, [("somebody", START)])
        complete_all([START], project.store)
    (ours,) = both.tick("dpdau_inbox_sensor").run_requests or ()
    (theirs,) = other.tick("second_inbox_sensor").run_requests or ()
    assert (ours.job_name, theirs.job_name) == ("dpdau_rebuild_days", "second_rebuild_days")
    assert ours.run_key != theirs.run_key
    assert other.execute("second_rebuild_days").success
    assert other.store.accountant.processed() == {START} and both.store.accountant.processed() == set()
