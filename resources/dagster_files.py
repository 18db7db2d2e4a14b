"""What Dagster is started with: its home, with settings, the list of what it loads, and its environment."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dpdau_assets.core.settings import Settings
from resources.settings_env import environment_for
from resources.storage.durable import make_folder, write_durably

CONFIGURATION, WORKSPACE = "dagster.yaml", "workspace.yaml"

NOTHING_IS_SENT = {"DAGSTER_DISABLE_TELEMETRY": "1"}
"""To Dagster's makers, not even what was noted for them while something else used this home."""

UNSAID = (
    "Function `dev_command` is superseded",  # by a command of a package that this project does not need
    "Parameter `owners` of initializer `SensorDefinition.__init__` is currently in beta",  # Dagster's own call
)
"""How the warnings begin that tell nobody anything; every other one is shown."""


def prepare_home(home: Path) -> None:
    """Make Dagster's home, for its owner alone, with the settings that dpdau ships unless it has its own."""
    make_folder(home)
    if not (home / CONFIGURATION).exists():
        write_durably(home / CONFIGURATION, _write_shipped)


def _write_shipped(file: BinaryIO) -> None:
    file.write(shipped(CONFIGURATION).read_bytes())


def environment_of_dagster(settings: Settings, log_format: str) -> dict[str, str]:
    """The environment of Dagster's processes: these settings, in any folder, and what they are told besides.

    Args:
        log_format: of the code servers, `colored` or `json`; web server and daemon are told theirs by an option.
    """
    quiet = ",".join(f"ignore:{beginning}" for beginning in UNSAID)
    told = {"DAGSTER_CLI_CODE_SERVER_START_LOG_FORMAT": log_format, "PYTHONWARNINGS": quiet, "PYTHONSAFEPATH": "1"}
    return {**environment_for(settings), **NOTHING_IS_SENT, **told}


def shipped(name: str) -> Path:
    """One of the project's files for Dagster: at the top of a checkout, in the package once that is installed."""
    top = Path(__file__).resolve().parents[1]
    installed = top / "dpdau_assets" / name
    return installed if installed.exists() else top / name
