"""The one way in which dpdau opens Dagster's instance: in a command, and in the processes that `dpdau ui` starts."""

import glob
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster_shared.yaml_utils import load_yaml_from_globs

from resources.dagster_files import CONFIGURATION, prepare_home

NO_TELEMETRY = {"telemetry": {"enabled": False}}


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance of this home, which is prepared first; it keeps no telemetry, whatever is set there."""
    prepare_home(home)
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides={**_settings(home), **NO_TELEMETRY}))


def _settings(home: Path) -> dict[str, Any]:
    """Dagster looks for them by a pattern, and so passes them over in a folder that is called [this]."""
    found: Any = load_yaml_from_globs(glob.escape(str(home / CONFIGURATION)))
    return found
