"""Dagster tries a step again where that is safe: never what was refused, and never where noise is drawn."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import dagster as dg
import pytest

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.state.rebuilding import build_days
from dpdau_assets.definitions import build_definitions
from dpdau_assets.orchestration.names import REBUILD_DAYS
from dpdau_assets.orchestration.retries import SAFE, cause_of
from dpdau_tests.conftest import put
from dpdau_tests.dagster.world import World

DAY = date(2025, 1, 1)
DRAWS = {"dau_release", "mau_release", "dau_restatement", "publish_due_numbers", "publish_these_numbers"}


@pytest.fixture
def world(make_store: Callable[..., Store], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: 0)
    store = make_store(today=date(2025, 1, 5))
    put(store, [("somebody", DAY)])
    return World(store, instance)


def failing(times: int, error: Exception) -> Callable[..., object]:
    """Building, as it goes wrong so often."""
    left = [times]

    def build(*arguments: object) -> object:
        if left[0]:
            left[0] -= 1
            raise error
        return build_days(*arguments)  # type: ignore[arg-type]

    return build


def attempts(done: dg.ExecuteInProcessResult) -> int:
    return sum(event.event_type_value in ("STEP_START", "STEP_RESTARTED") for event in done.all_events)


CONFIG = {"ops": {"build_many_days": {"config": {"days": [str(DAY)]}}}}


def test_a_disk_that_was_full_for_a_moment_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpdau_assets.orchestration.bulk.build_days", failing(1, OSError("no space left on device")))
    done = world.execute(REBUILD_DAYS, config=CONFIG)
    assert done.success and attempts(done) == 2
    assert DAY in world.store.accountant.processed()


def test_what_stays_broken_fails_after_a_few_attempts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpdau_assets.orchestration.bulk.build_days", failing(99, OSError("no space left on device")))
    done = world.execute(REBUILD_DAYS, config=CONFIG)
    assert not done.success and attempts(done) == 1 + SAFE.max_retries


def test_what_dpdau_refuses_is_not_tried_again_and_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpdau_assets.orchestration.bulk.build_days", failing(99, Refused("Not today.", "Tomorrow.")))
    done = world.execute(REBUILD_DAYS, config=CONFIG)
    assert not done.success and attempts(done) == 1
    (failure,) = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.error and "Not today. Tomorrow." in str(failure.error)


def test_no_step_that_draws_noise_is_tried_again_by_itself_and_every_other_one_is() -> None:
    definitions = build_definitions(Settings(retention_days=60))
    retried, others = set(), set()
    for name in [job.name for job in definitions.resolve_all_job_defs()]:
        for node in definitions.resolve_job_def(name).all_node_defs:
            if isinstance(node, dg.OpDefinition) and "check" not in type(node).__name__.lower():
                (retried if node.retry_policy else others).add(node.name)
    checks = {key.name for key in definitions.resolve_asset_graph().asset_check_keys}
    names = {name for name in others if not any(name.endswith(check) for check in checks)}
    assert names == DRAWS | {"erasures"}  # which writes nothing
    assert not retried & DRAWS


def test_the_refusal_behind_a_failure_is_found_and_of_another_one_the_failure_itself() -> None:
    refusal, failure = Refused("No.", "Yes."), dg.Failure("No.")
    failure.__cause__ = refusal
    assert cause_of(failure) is refusal
    other = dg.Failure("A disk.")
    assert cause_of(other) is other
