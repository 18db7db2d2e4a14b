"""A storage that speaks S3's protocol, on this machine: moto's server as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import pytest

KEY, SECRET = "a-key-of-tests-7e57", "a-secret-that-no-error-may-tell"

_SERVE = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


def require_s3() -> None:
    """Skip where the extra `s3` and moto are not installed; fail instead in CI."""
    missing = [name for name in ("s3fs", "moto") if find_spec(name) is None]
    if missing:
        reason = f"Not installed: {', '.join(missing)} (the extra `s3`, and moto)."
        if os.environ.get("DPDAU_CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server without any bucket, that listens until the end of the block."""
    with TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, **credentials("")}
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=home,
            env=environment,
        )
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "moto's server does not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def credentials(address: str) -> Mapping[str, str]:
    """Environment variables with which clients find the server, and nothing else of this machine's."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def nobody_let_in(address: str) -> Iterator[None]:
    """While the server knows no key at all, and refuses what it is asked."""
    _set_open_requests(address, "0")
    try:
        yield
    finally:
        _set_open_requests(address, "inf")


def _set_open_requests(address: str, count: str) -> None:
    """How many requests moto answers before it asks who asks."""
    headers = {"Content-Type": "text/plain"}
    urlopen(Request(f"{address}/moto-api/reset-auth", count.encode(), headers, method="POST")).close()


def put_folder(folder: Path, bucket: str) -> None:
    """Make a bucket of what a folder holds, with the credentials of the environment."""
    import s3fs

    storage = s3fs.S3FileSystem(skip_instance_cache=True)
    storage.mkdir(bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        storage.pipe_file(f"{bucket}/{path.relative_to(folder)}", path.read_bytes())
