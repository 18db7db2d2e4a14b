"""The one loop that does steps by Dagster's jobs in this process: what `dpdau run` is, without a daemon."""

import warnings
from collections.abc import Callable, Iterable
from datetime import date
from itertools import groupby
from typing import Any

import dagster as dg

from dpdau_assets.core.publication.runs import Step
from dpdau_assets.orchestration import names
from dpdau_assets.orchestration.bulk import LOAD, THESE
from dpdau_assets.orchestration.publishing import DONE
from dpdau_assets.orchestration.retries import cause_of

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_steps(
    wanted: list[Step], definitions: dg.Definitions, instance: dg.DagsterInstance, done: Callable[[Step], None]
) -> None:
    """Do these steps by Dagster runs in this process, numbers that follow one another in one; `done` hears of each.

    The first failure is raised as it is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # resolving a sensor copies a young part of it
        jobs = {name: definitions.resolve_job_def(name) for name in set(names.JOB_OF.values())}
    for name, group in groupby(wanted, key=lambda step: names.JOB_OF[step.kind]):
        steps = list(group)
        if name == names.PUBLISH_NUMBERS:  # which tells of each number by itself
            _run(jobs[name], _publishing_config(steps), instance, done)
            continue
        for step in steps:
            _run(jobs[name], _building_config(step.days) if step.days else {}, instance, done)
            done(step)


def _run(
    job: dg.JobDefinition, config: dict[str, Any], instance: dg.DagsterInstance, done: Callable[[Step], None]
) -> None:
    token = DONE.set(done)
    try:
        job.execute_in_process(instance=instance, run_config={**config, **_QUIET})
    except dg.Failure as failure:
        raise cause_of(failure) from None
    finally:
        DONE.reset(token)


def _publishing_config(steps: Iterable[Step]) -> dict[str, Any]:
    """Which numbers a run publishes."""
    return {"ops": {THESE: {"config": {"steps": [f"{step.kind} {step.day}" for step in steps]}}}}


def _building_config(days: Iterable[date]) -> dict[str, Any]:
    """Which days a run in bulk builds."""
    return {"ops": {LOAD: {"config": {"days": [day.isoformat() for day in days]}}}}
