"""What `dpdau ui` becomes: `dagster dev`, on the instance as dpdau opens it. `python -m dpdau_assets.serving OPTION...`

Web server, daemon, code server and runs are handed the instance that this process has opened.
"""

import dagster as dg

from dpdau_assets.orchestration.private import serve
from resources.dagster_instance import open_run
from resources.settings_env import dagster_home, read_settings


def main() -> None:
    """Serve until interrupted."""
    home = dagster_home(read_settings())
    dg.DagsterInstance.get = staticmethod(lambda: open_run(home))  # it has no option for another dagster.yaml
    serve()


if __name__ == "__main__":
    main()
