"""How often a piece of work was tried: what sensors need so that a repeated tick starts nothing twice.

Dagster never runs one run key twice, and never repeats a failed run by itself. So a key names the work and the attempt,
and the work is named after what has to be done: other work, other attempts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import dagster as dg

from dpdau_assets.orchestration.jobs import UNDER_WAY

ATTEMPTS = 3

TASK = "dpdau/task"
"""The tag that says what work a run is for."""


@dataclass(frozen=True)
class Tries:
    """The runs of one task so far: whether one is under way, and the keys that are used up.

    A run that was made but never launched counts as none: asked for by its key again, Dagster launches it.
    """

    under_way: bool = False
    keys: frozenset[str] = frozenset()


def task_name(kind: str, parts: Iterable[str]) -> str:
    """Named after what waits, by a hash: it tells neither what that is nor how much."""
    return f"{kind}/{hashlib.sha256(' '.join(sorted(parts)).encode()).hexdigest()[:16]}"


def tries_of(tasks: Iterable[str], instance: dg.DagsterInstance) -> Mapping[str, Tries]:
    """What Dagster knows of the runs for these tasks."""
    tasks = list(tasks)
    runs = instance.get_runs(dg.RunsFilter(tags={TASK: tasks})) if tasks else []
    launched = [run for run in runs if run.status != dg.DagsterRunStatus.NOT_STARTED]
    under_way = {run.tags[TASK] for run in launched if not run.is_finished}
    keys: dict[str, set[str]] = defaultdict(set)
    for run in launched:
        keys[run.tags[TASK]].add(run.tags.get("dagster/run_key", ""))
    return {task: Tries(task in under_way, frozenset(keys[task])) for task in tasks}


def next_key(task: str, tries: Mapping[str, Tries], today: date) -> str | None:
    """The key of the next attempt, None while one is under way: a few attempts, then one a day until a person looks."""
    tried = of(task, tries)
    key = free_key(task, tries) or f"{task}/{today}"
    return None if tried.under_way or key in tried.keys else key


def is_under_way(job: dg.JobDefinition, instance: dg.DagsterInstance) -> bool:
    """Whether a run of this job waits or goes on, whatever for."""
    return bool(instance.get_runs(dg.RunsFilter(job_name=job.name, statuses=UNDER_WAY), limit=1))


def free_key(task: str, tries: Mapping[str, Tries]) -> str | None:
    """The key of one of the first few attempts, None when they are used up."""
    used = of(task, tries).keys
    return next((key for attempt in range(ATTEMPTS) if (key := f"{task}/{attempt}") not in used), None)


def is_given_up(task: str, tries: Mapping[str, Tries]) -> bool:
    """Whether the first few attempts have all failed."""
    return free_key(task, tries) is None and not of(task, tries).under_way


def of(task: str, tries: Mapping[str, Tries]) -> Tries:
    return tries.get(task, Tries())
