"""Dagster's instance: the one way in which dpdau opens it, and whether publication is switched on there."""

import glob
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.check import CheckError
from dagster_shared.yaml_utils import load_yaml_from_globs
from yaml import YAMLError

from dpdau_assets.core.errors import BadSetting
from dpdau_assets.orchestration.names import PUBLISH_DUE_HOURLY
from dpdau_assets.orchestration.private import open_instance, switched_on
from resources.dagster_files import CONFIGURATION, prepare_home

NO_TELEMETRY = {"telemetry": {"enabled": False}}


def open_run(home: Path) -> dg.DagsterInstance:
    """The Dagster instance of this home, which is prepared first; it keeps no telemetry, whatever is set there."""
    prepare_home(home)
    return _instance_of(home)


def is_scheduled(instance: dg.DagsterInstance) -> bool:
    """Whether the schedule that publishes was switched on in this instance, and not off again."""
    return is_switched_on(instance, PUBLISH_DUE_HOURLY)


def is_switched_on(instance: dg.DagsterInstance, schedule: str) -> bool:
    """Whether a schedule of this name, which is off at first, is on in this instance."""
    if instance.schedule_storage is None:  # of one in memory, which nothing can be switched on in
        return False
    return schedule in switched_on(instance)


def is_scheduled_in(home: Path) -> bool:
    """Whether it is switched on in the instance of a home that is there; nothing is made in it that Dagster does not.

    Raises BadSetting for one that Dagster cannot open.
    """
    try:
        with _instance_of(home) as instance:
            return is_scheduled(instance)
    except (dg.DagsterError, CheckError, YAMLError) as error:
        raise BadSetting(
            f"Dagster's home, {home}, cannot be opened: {type(error).__name__}.", "Correct its dagster.yaml."
        ) from None


def _instance_of(home: Path) -> dg.DagsterInstance:
    return open_instance(str(home), {**_settings(home), **NO_TELEMETRY})


def _settings(home: Path) -> dict[str, Any]:
    """Dagster looks for them by a pattern, and so passes them over in a folder that is called [this]."""
    configuration: Any = load_yaml_from_globs(glob.escape(str(home / CONFIGURATION)))
    return configuration
