"""Whether publication is switched on in Dagster: that is kept by Dagster's instance and by nobody else."""

from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType

from dpdau_assets.core.due import SCHEDULE
from dpdau_assets.core.errors import BadSetting


def is_scheduled(instance: dg.DagsterInstance) -> bool:
    """Whether the schedule that publishes was switched on in this instance, and not off again."""
    if instance.schedule_storage is None:  # of one in memory, which nothing can be switched on in
        return False
    schedules = instance.all_instigator_state(
        instigator_type=InstigatorType.SCHEDULE, instigator_statuses={InstigatorStatus.RUNNING}
    )
    return any(one.name == SCHEDULE for one in schedules)


def is_scheduled_in(home: Path) -> bool:
    """The same of the instance that has its home there. Raises BadSetting for one that Dagster cannot open."""
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return is_scheduled(instance)
    except dg.DagsterError as error:
        raise BadSetting(
            f"Dagster's home, {home}, cannot be opened: {type(error).__name__}.", "Correct its dagster.yaml."
        ) from None
