"""The services of Dagster in containers: `services.py prepare`, `services.py webserver OPTION...`, `... daemon`.

`dpdau ui` runs web server and daemon as one tree of processes. Apart from one another they need what it gives them:
Dagster's home with the shipped dagster.yaml, the shipped workspace.yaml, and the settings as an environment that holds
in any folder. `prepare` runs once before all services, so that no two of them make a new store at the same moment.
"""

import os
import sys
from pathlib import Path

import dagster as dg

from dpdau_assets.cli.serve import require_keys
from dpdau_assets.core.errors import BadSetting, DpdauError
from resources.dagster_files import WORKSPACE, environment_of_dagster, prepare_home, shipped
from resources.dagster_instance import open_run
from resources.settings_env import dagster_home, read_settings
from resources.store import open_store

PROGRAMS = {"webserver": ["dagster-webserver"], "daemon": ["dagster-daemon", "run"]}
LOG_FORMAT = "json"


def prepare() -> None:
    """Make what is missing of the store, of its ledger and of Dagster's home; refuse settings that cannot work."""
    settings = read_settings()
    if settings.hash_salt_secret is None:
        raise BadSetting("HASH_SALT_SECRET is not set.", "Set the store's secret; for a new one: openssl rand -hex 32.")
    if not os.environ.get("START_DATE"):
        raise BadSetting(
            "START_DATE is not set, and a living store keeps the one that it begins with.",
            "Set the first day that counts, such as 2026-01-01.",
        )
    require_keys(settings)
    open_store(settings)
    with open_run(dagster_home(settings)) as instance:
        _make_databases(instance)
    print(f"Prepared: {settings.data_dir}, the ledger, and {dagster_home(settings)}.")


def _make_databases(instance: dg.DagsterInstance) -> None:
    """Dagster makes each of them when it is asked for the first time."""
    instance.get_runs(limit=1)
    instance.get_asset_keys(limit=1)
    instance.all_instigator_state()


def command(service: str, options: list[str]) -> list[str]:
    """The program of a service, on the workspace that dpdau ships."""
    program, *words = PROGRAMS[service]
    beside = Path(sys.executable).with_name(program)
    return [str(beside), *words, "--workspace", str(shipped(WORKSPACE)), "--log-format", LOG_FORMAT, *options]


def become(service: str, options: list[str]) -> None:
    """Replace this process by the service."""
    settings = read_settings()
    home = dagster_home(settings)
    prepare_home(home)
    arguments = command(service, options)
    os.chdir(home)  # no .env is here, and no folder that has the name of a module
    os.execve(arguments[0], arguments, environment_of_dagster(settings, LOG_FORMAT))


def main() -> None:
    """Do what the first argument says."""
    service, *options = sys.argv[1:] or [""]
    try:
        if service == "prepare":
            prepare()
        elif service in PROGRAMS:
            become(service, options)
        else:
            sys.exit(f"{service!r} is no service: name prepare, webserver or daemon.")
    except DpdauError as error:
        print(f"{type(error).__name__}: {error.reason}\n{error.remedy}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
