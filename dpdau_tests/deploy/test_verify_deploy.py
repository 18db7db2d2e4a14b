"""`tools/verify_deploy.py` on a real server: what it finds when all is well, what it finds behind each kind of bad
proxy, and that it changes nothing.
"""

from __future__ import annotations

import http.client
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dpdau_assets.core.version import VERSION
from dpdau_tests.api.serving import KEY, PATIENCE, Served, serve
from dpdau_tests.deploy.proxying import Passed, Spoiling, proxy
from dpdau_tests.support.certificates import certificate
from dpdau_tests.support.project import PROJECT, loaded
from resources.storage.api_key_file import ApiKeyFile

Ran = subprocess.CompletedProcess[str]

SCRIPT = PROJECT / "tools" / "verify_deploy.py"


TOOL = loaded(SCRIPT)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with events; the log of what was acknowledged has become a batch."""
    folder = tmp_path_factory.mktemp("served")
    with serve(folder, TRUSTED_PROXIES="127.0.0.9") as running:
        day = str(datetime.now(UTC).date() - timedelta(days=1))
        rows = [{"user_id": f"person-{n}", "op": "+", "day": day} for n in range(20)]
        assert running.ask("POST", "/event", {"events": rows}).status == 202
        _wait_until_sealed(folder / "store")
        yield running


def _wait_until_sealed(store: Path) -> None:
    for _ in range(PATIENCE):
        if any((store / "inbox").glob("*.parquet")):
            return
        time.sleep(0.1)
    pytest.fail("What was acknowledged did not become a batch.")


def verify(url: str, *options: str, key: str | None = None, **environment: str) -> Ran:
    """The tool in this process, as it ends and what it prints."""
    own = {**environment, **({"DPDAU_API_KEY": key} if key else {})}
    said, printed = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stderr(said), redirect_stdout(printed):
        patched.delenv("DPDAU_API_KEY", raising=False)
        for name, value in own.items():
            patched.setenv(name, value)
        try:
            code = TOOL.main([url, *options])
        except SystemExit as ended:
            code = int(str(ended.code))
    return Ran([url], code, printed.getvalue(), said.getvalue())


def at(port: int, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{port}"


def failed(ran: Ran) -> set[str]:
    """The checks that failed; every one of these lines says what to do in a second sentence."""
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FAIL")]
    assert all(line.count(". ") >= 1 and line.endswith(".") for line in lines), lines
    assert ran.returncode == (1 if lines else 0), ran
    return {line.split()[1].rstrip(":") for line in lines}


def test_a_key_is_sent_to_nobody_elsewhere_in_clear() -> None:
    there = TOOL.Deployment(urlsplit("http://192.0.2.1:9"), VERSION, KEY)
    with pytest.raises(TOOL.Failed, match="would cross the network unencrypted, and was not sent"):
        TOOL.the_key_reads(there)


def test_a_deployment_that_is_well_passes_every_check(served: Served) -> None:
    ran = verify(at(served.port), key=KEY)
    assert failed(ran) == set()
    assert sum(line.startswith("ok ") for line in ran.stdout.splitlines()) == 10
    assert KEY not in ran.stdout + ran.stderr


def test_the_command_line_ends_with_the_code_of_what_it_found(served: Served) -> None:
    for version, code in ((VERSION, 0), (f"{VERSION}9", 1)):
        command = [sys.executable, str(SCRIPT), at(served.port), "--version", version]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert ran.returncode == code and ran.stderr == "", ran


def test_without_a_key_no_number_is_read_and_the_rest_is_asked(served: Served) -> None:
    ran = verify(at(served.port))
    assert failed(ran) == set()
    assert "skip the_key_reads" in ran.stdout


def test_it_changes_no_file_of_the_store_and_no_row_of_the_ledger(served: Served) -> None:
    store = served.log.parent / "store"
    before = _kept(store)
    assert len(before[0]) >= 2 and len(before[1]) > 10
    assert failed(verify(at(served.port), key=KEY)) == set()
    assert _kept(store) == before


def _kept(store: Path) -> tuple[dict[str, str], list[str]]:
    """Every file but the ledger's, by its bytes, and every row of the ledger."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and not path.name.startswith("ledger.sqlite")]
    digests = {str(path.relative_to(store)): sha256(path.read_bytes()).hexdigest() for path in files}
    with closing(sqlite3.connect(f"file:{store / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        return digests, list(ledger.iterdump())


def test_a_change_of_the_store_would_be_seen(served: Served) -> None:
    store = served.log.parent / "store"
    before = _kept(store)
    asked = served.ask("POST", "/erasure", {"user_id": "person-1", "through": str(date.today())})
    assert asked.status == 202
    assert _kept(store)[1] != before[1]


SPOILED = {
    "a proxy that hides a header": (Spoiling(hides=("x-content-type-options",)), {"answers_carry_headers"}),
    "a proxy that caches the document": (
        Spoiling(answers={"/openapi.json": Passed(200, {}, b'{"info": {"version": "0.0.1"}}')}),
        {"it_documents_itself"},
    ),
    "a proxy with pages of its own for what is not there": (
        Spoiling(answers={"/no-such-route": Passed(404, {"Content-Type": "text/html"}, b"<h1>Not found</h1>")}),
        {"errors_are_its_own"},
    ),
    "a proxy that does not pass /docs on": (
        Spoiling(answers={"/docs": Passed(502, {}, b"")}),
        {"it_shows_its_routes"},
    ),
    "a proxy that answers health itself": (
        Spoiling(answers={"/healthz": Passed(200, {}, b"OK")}),
        {"it_lives", "answers_carry_headers"},
    ),
    "a proxy that has a key for everybody": (
        Spoiling(without=("x-api-key",), sent={"X-API-Key": KEY}),
        {
            "nobody_reads_without_a_key",
            "nobody_posts_without_a_key",
            "strangers_get_no_metrics",
        },
    ),
    "a proxy on the same machine that adds no header": (
        Spoiling(without=("x-forwarded-for",)),
        {"strangers_get_no_metrics"},
    ),
    "a server that is not ready": (
        Spoiling(answers={"/readyz": Passed(503, {}, b'{"checks": {"disk": {"ok": false}}}')}),
        {"it_is_ready"},
    ),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_each_fault_is_found_by_its_check_and_by_no_other(served: Served, fault: str) -> None:
    spoiling, checks = SPOILED[fault]
    with proxy(served.port, spoiling) as port:
        assert failed(verify(at(port), key=KEY)) == checks


def test_a_proxy_that_passes_everything_on_passes_every_check(served: Served) -> None:
    with proxy(served.port) as port:
        assert failed(verify(at(port), key=KEY)) == set()


def test_another_version_is_found(served: Served) -> None:
    ran = verify(at(served.port), "--version", f"{VERSION}9")
    assert failed(ran) == {"it_lives", "it_documents_itself"}
    assert f"Version {VERSION} answers, not {VERSION}9." in ran.stdout


def test_a_key_that_may_not_read_is_told(served: Served) -> None:
    file = ApiKeyFile(served.log.parent / "store" / "api_keys.json")
    for presented in ("f" * 30 + "0123456789abcdef", file.add("writer", frozenset({"ingest"}), date.today())[1]):
        ran = verify(at(served.port), key=presented)
        assert failed(ran) == {"the_key_reads"}
        assert presented not in ran.stdout + ran.stderr


def test_the_headers_of_https_and_the_certificate_are_asked_behind_a_proxy_that_is_trusted(tmp_path: Path) -> None:
    cert, tls = certificate(tmp_path, days=90)
    passing = Spoiling(sent={"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"})
    with serve(tmp_path, TRUSTED_PROXIES="127.0.0.1") as behind:
        with proxy(behind.port, passing, tls) as port:
            ran = verify(at(port, "https"), SSL_CERT_FILE=str(cert))
            assert failed(ran) == set()
            assert "strict-transport-security" in ran.stdout
            unknown = verify(at(port, "https"))
            assert failed(unknown) == {"tls_holds"} and "The certificate does not hold" in unknown.stdout
        with proxy(behind.port, Spoiling(), tls) as port:
            assert failed(verify(at(port, "https"), SSL_CERT_FILE=str(cert))) == {"answers_carry_headers"}
        (tmp_path / "short").mkdir()
        ending, tls = certificate(tmp_path / "short", days=3)
        with proxy(behind.port, passing, tls) as port:
            ran = verify(at(port, "https"), SSL_CERT_FILE=str(ending))
            assert failed(ran) == {"tls_holds"} and "ends within 7 days" in ran.stdout


def test_a_store_that_was_moved_away_is_told_as_not_ready_and_an_ended_server_as_gone(tmp_path: Path) -> None:
    with serve(tmp_path) as running:
        (tmp_path / "store").rename(tmp_path / "moved")
        ran = verify(at(running.port))
        assert failed(ran) == {"it_is_ready"} and "ledger" in ran.stdout
        running.end()
        gone = verify(at(running.port))
        assert failed(gone) == {"it_lives"} and "ConnectionRefusedError" in gone.stdout


def test_where_nothing_answers_one_check_is_asked_and_no_more(served: Served) -> None:
    for port, answered in ((_free_port(), 0), (served.port, 9)):
        ran = verify(at(port))
        assert [line[:4].strip() for line in ran.stdout.splitlines()].count("ok") == answered
        assert ("Nothing else was asked." in ran.stdout) == (not answered)
        assert len(failed(ran)) == (0 if answered else 1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_post_without_a_key_is_refused_before_its_body_is_sent(served: Served) -> None:
    """What the tool relies on: nobody reads what a stranger sends."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    try:
        connection.putrequest("POST", "/event")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        assert connection.getresponse().status == 401
    finally:
        connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "dpdau.example.org",
        "ftp://host",
        "https://",
        "http://host/?key=1",
        "http://a:b@host",
        "http://host:99999",
        "http://host:0",
        "http://host:http",
        "http://[::1",
    ],
)
def test_what_is_no_address_of_an_api_is_refused_as_usage(url: str) -> None:
    ran = verify(url)
    assert ran.returncode == 2 and "URL is http:// or https://" in ran.stderr and ran.stdout == ""


def test_without_an_address_make_is_told_to_name_one() -> None:
    ran = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 2 and "make verify-deploy URL=https://" in ran.stderr, ran


def test_a_week_without_numbers_is_no_fault(served: Served) -> None:
    """The store of these tests has published none."""
    week = datetime.now(UTC).date() - timedelta(days=7)
    assert served.ask("GET", f"/series/dau?from={week}&to={date.today()}").said == []
    assert "ok   the_key_reads" in verify(at(served.port), key=KEY).stdout
