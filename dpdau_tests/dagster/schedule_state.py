"""The schedule `publish_due_hourly` as the UI leaves it: switched on, or off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from dpdau_assets.orchestration.names import PUBLISH_DUE_HOURLY
from resources.dagster_instance import open_run

_LOCATION = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="dpdau_assets.definitions"))
_ORIGIN = RemoteInstigatorOrigin(RemoteRepositoryOrigin(_LOCATION, "__repository__"), PUBLISH_DUE_HOURLY)


def switch(instance: dg.DagsterInstance, status: InstigatorStatus) -> None:
    """Write what Dagster writes when somebody switches it."""
    data = ScheduleInstigatorData("5 * * * *", start_timestamp=0.0 if status == InstigatorStatus.RUNNING else None)
    state = InstigatorState(_ORIGIN, InstigatorType.SCHEDULE, status, data)
    known = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    (instance.update_instigator_state if known else instance.add_instigator_state)(state)


@contextmanager
def switched(home: Path, status: InstigatorStatus) -> Iterator[None]:
    """Meanwhile it is so in the instance of this home, which is made if there is none."""
    with patch.dict("os.environ", {"DAGSTER_HOME": str(home)}):
        with open_run(home) as instance:
            switch(instance, status)
        yield
