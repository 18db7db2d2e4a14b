"""`dpdau serve`: the HTTP API on one's own store."""

from __future__ import annotations

import os
import ssl
import sys
from importlib.util import find_spec
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from dpdau_assets.cli.listening import LOOPBACK, require_free
from dpdau_assets.cli.terminal import answer, tell
from dpdau_assets.core.api_keys import require_usable
from dpdau_assets.core.errors import BadSetting
from dpdau_assets.core.secret_strength import require_set
from dpdau_assets.core.settings import Settings
from resources.settings_env import read_settings
from resources.storage.api_key_file import api_key_file
from resources.store import SystemClock, open_store

APP = "dpdau_assets.api.app:create_app"
OF_THE_EXTRA = ("fastapi", "fastapi_offline", "httptools", "limits", "msgspec", "prometheus_client", "uvicorn")
IDLE_SECONDS = 15  # a connection that asks for nothing
STOP_SECONDS = 30  # for requests that are under way
STUCK_SECONDS = 10  # a worker that says nothing for so long is ended, and another one started
WAITING_CONNECTIONS = 2_048
MEMORY = Path("/dev/shm")  # a full disk ends a process that counts in a file of it

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; one a core.")] = 2,
    tls_cert: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM; then HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM, of --tls-cert.")] = None,
) -> None:
    """Serve the HTTP API on this store, until it is ended: events and erasure requests in, published numbers out.

    It refuses to start without a key: `dpdau api-key new`, or SERVICE_API_KEY.
    """
    _require_installed()
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("Give both, --tls-cert and --tls-key, or neither.")
    if tls_cert and tls_key:
        require_pair(tls_cert, tls_key)
    settings = read_settings()
    require_keys(settings)
    require_free(host, port, "The API", "dpdau serve")
    _require_store(settings)
    scheme = "https" if tls_cert else "http"
    answer({"url": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", "workers": workers})
    tell("The API is starting; Ctrl-C ends it. Its routes: /docs.")
    if host not in LOOPBACK and tls_cert is None:
        tell(f"Keys and ids come to {host} unencrypted: give --tls-cert, or let only a proxy reach it.", style="bold")
    sys.stdout.flush()
    with TemporaryDirectory(prefix="dpdau-metrics-", dir=MEMORY if MEMORY.is_dir() else None) as counters:
        if workers > 1:  # each counts in files of its own: set before anything imports prometheus_client
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = counters
        _run(host, port, workers, settings, tls_cert, tls_key)


def require_keys(settings: Settings) -> None:
    """Raise BadSetting where nobody could be let in, or the environment's key could be guessed."""
    keys, today = api_key_file(settings).read(), SystemClock(settings.timezone).today()
    if settings.service_api_key is not None:
        require_usable(settings.service_api_key)
    elif not any(key.state(today) == "valid" for key in keys):
        raise BadSetting(
            "There is no key that is valid, so nobody could use the API.",
            "Make one: `dpdau api-key new NAME --scope ingest`, or set SERVICE_API_KEY.",
        )


def require_pair(cert: Path, key: Path) -> None:
    """Raise BadSetting for a certificate and a key that TLS cannot use together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BadSetting(
            f"{cert} and {key} do not serve TLS: {error.strerror if isinstance(error, OSError) else 'unreadable'}.",
            "Give a certificate and its own key, both PEM, the key without a password.",
        ) from None


def _require_store(settings: Settings) -> None:
    """A store that cannot be opened, is told here, and once, and not by each worker."""
    require_set(settings.hash_salt_secret)
    open_store(settings)


def _require_installed() -> None:
    missing = [name for name in OF_THE_EXTRA if not find_spec(name)]
    if missing:
        raise BadSetting(
            f"Not installed: {', '.join(missing)}.", "Install the extra `api`: requirements-api.lock has all of it."
        )


def _run(host: str, port: int, workers: int, settings: Settings, cert: Path | None, key: Path | None) -> None:
    import uvicorn

    from dpdau_assets.api.protocol import BoundedHttpToolsProtocol
    from dpdau_assets.api.request_log import log_config

    _, most = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (most, most))  # each connection is one
    tls: dict[str, Any] = {"ssl_certfile": cert, "ssl_keyfile": key} if cert else {}
    uvicorn.run(
        APP,
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=BoundedHttpToolsProtocol,
        ws="none",
        lifespan="on",
        log_config=log_config("info"),
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_worker_healthcheck=STUCK_SECONDS,
        backlog=WAITING_CONNECTIONS,
        **tls,
    )
