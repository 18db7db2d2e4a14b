"""Smoke-tests a running deployment, and writes nothing to it: `python tools/verify_deploy.py URL [--version VERSION]`.

URL is where the API is served, such as https://dpdau.example.org; a path before its routes may be part of it. With a
key in DPDAU_API_KEY it asks for the last week's numbers as well; there may be none. One line a check, with what to do;
exit code 1 if one fails, and the first that is not answered is the last. Nothing that a server which is wide open would
keep is sent: the one POST has no event in it.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit

from dpdau_assets.api.bounds import with_ours
from dpdau_assets.api.problems import MEDIA_TYPE
from dpdau_assets.core.version import VERSION
from resources.loopback import is_loopback

KEY = "DPDAU_API_KEY"
EXAMPLE = "https://dpdau.example.org"
SECONDS = 15
LONGEST = 8_000_000  # bytes of an answer: the document is 200 kB
LEAST_DAYS_LEFT = 7  # of a certificate


class Failed(Exception):
    """A check does not hold: what was seen, and what to do."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(f"{seen} {remedy}")


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """The body's JSON object; empty for anything else."""
        try:
            said = json.loads(self.body)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}


@dataclass(frozen=True)
class Deployment:
    """Where it is served, the version that is expected, and a key to read with; the key is in no repr."""

    at: SplitResult
    version: str
    key: str | None = field(default=None, repr=False)

    @property
    def is_https(self) -> bool:
        return self.at.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.at.hostname or "")

    def connected(self) -> http.client.HTTPConnection:
        """A connection; of HTTPS one whose certificate holds."""
        host, port = self.at.hostname or "", self.at.port
        if self.is_https:
            return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=SECONDS)

    def ask(self, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        """A GET on a connection of its own, or a POST of this body; redirects are not followed."""
        connection = self.connected()
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, f"{self.at.path.rstrip('/')}{path}", body, dict(headers or {}))
            response = connection.getresponse()
            said = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, said, response.read(LONGEST))
        finally:
            connection.close()


# --- The checks: each says what it saw, or raises Failed --------------------------------------------------------------


def it_lives(there: Deployment) -> str:
    """The process serves, in the version that is expected."""
    answer = there.ask("/healthz")
    _require_status(answer, 200, "/healthz", "Start the API, and see its log.")
    if answer.said.get("status") != "ok":
        raise Failed("/healthz is answered by something else.", "Name the address at which dpdau's API is served.")
    version = str(answer.said.get("version", "none"))[:20]
    if version != there.version:
        raise Failed(
            f"Version {version} answers, not {there.version}.", "Deploy the other, or name this one by --version."
        )
    return f"version {there.version}"


def it_is_ready(there: Deployment) -> str:
    """Ledger, disk, inbox and log work."""
    answer = there.ask("/readyz")
    parts = answer.said.get("checks", {})
    broken = [name for name, part in sorted(parts.items()) if not part.get("ok")]
    if answer.status != 200 or broken or not parts:
        what = f"these do not work: {', '.join(broken)}" if broken else f"/readyz is answered by {answer.status}"
        raise Failed(f"It takes nothing: {what}.", "See the log of the API, and docs/runbook.md.")
    return ", ".join(sorted(parts))


def it_shows_its_routes(there: Deployment) -> str:
    """The page for people is served."""
    answer = there.ask("/docs")
    _require_status(answer, 200, "/docs", "Let the proxy pass /docs on, or see the log of the API.")
    if "text/html" not in answer.headers.get("content-type", ""):
        raise Failed("/docs is no page.", "Let the proxy pass it on unchanged.")
    return "/docs"


def it_documents_itself(there: Deployment) -> str:
    """The document for machines is of the version that is expected."""
    answer = there.ask("/openapi.json")
    _require_status(answer, 200, "/openapi.json", "Let the proxy pass it on, or see the log of the API.")
    version = answer.said.get("info", {}).get("version")
    if version != there.version:
        raise Failed(f"The document is not of version {there.version}.", "Have no proxy or cache answer for the API.")
    return f"{len(answer.said.get('paths', {}))} paths"


def answers_carry_headers(there: Deployment) -> str:
    """Answers say how browsers and caches may treat them, and nothing of the server."""
    answer = there.ask("/healthz")
    wanted = {name.decode(): value.decode() for name, value in with_ours([], "", is_https=there.is_https)}
    del wanted["x-request-id"]
    wrong = [name for name, value in wanted.items() if answer.headers.get(name) != value]
    if not answer.headers.get("x-request-id"):
        wrong.append("x-request-id")
    if wrong:
        raise Failed(
            f"Missing or changed: {', '.join(wrong)}.",
            "Have the proxy pass headers on, and send X-Forwarded-Proto from an address in TRUSTED_PROXIES.",
        )
    return ", ".join([*wanted, "x-request-id"])


def nobody_reads_without_a_key(there: Deployment) -> str:
    """A read without a key is refused."""
    return _refused(there.ask("/status"), "/status without a key")


def nobody_posts_without_a_key(there: Deployment) -> str:
    """A POST of no event, without a key, is refused."""
    answer = there.ask("/event", {"Content-Type": "application/json"}, b'{"events": []}')
    return _refused(answer, "POST /event without a key")


def strangers_get_no_metrics(there: Deployment) -> str:
    """Metrics are refused to who asks from elsewhere: on the machine itself a proxy's header says so."""
    headers = {"X-Forwarded-For": "192.0.2.1"} if there.is_loopback else {}
    return _refused(there.ask("/metrics", headers), "/metrics from elsewhere")


def errors_are_its_own(there: Deployment) -> str:
    """What is not there is told by the API, and not by something before it."""
    answer = there.ask("/no-such-route")
    _require_status(answer, 404, "/no-such-route", "Let the proxy pass everything on.")
    if not answer.headers.get("content-type", "").startswith(MEDIA_TYPE) or answer.said.get("code") != "NotFound":
        raise Failed("An error is not in the API's shape.", "Have the proxy pass answers on unchanged.")
    return "404 NotFound"


def the_key_reads(there: Deployment) -> str:
    """The key reads the numbers of the last days; how many there are is not judged. It is sent to nobody in clear."""
    if not there.is_https and not there.is_loopback:
        raise Failed(f"{KEY} would cross the network unencrypted, and was not sent.", "Name the address of HTTPS.")
    today = datetime.now(UTC).date()
    path = f"/series/dau?from={today - timedelta(days=7)}&to={today}"
    answer = there.ask(path, {"X-API-Key": there.key or ""})
    code = answer.said.get("code", "")
    remedy = f"Put a valid key of scope read into {KEY}." if answer.status in (401, 403) else "See the log of the API."
    _require_status(answer, 200, "/series/dau with the key", remedy, code)
    return "/series/dau"


def tls_holds(there: Deployment) -> str:
    """The certificate is valid for a while, and the protocol a present one."""
    connection = there.connected()
    try:
        connection.connect()
        socket: Any = connection.sock
        protocol, certificate = socket.version(), socket.getpeercert()
    finally:
        connection.close()
    left = (ssl.cert_time_to_seconds(certificate["notAfter"]) - datetime.now(UTC).timestamp()) / 86_400
    if left < LEAST_DAYS_LEFT:
        raise Failed(f"The certificate ends within {LEAST_DAYS_LEFT} days.", "Renew it.")
    return f"{protocol}, certificate for {left:.0f} days"


Check = Callable[[Deployment], str]

ALWAYS: tuple[Check, ...] = (
    it_lives,
    it_is_ready,
    it_shows_its_routes,
    it_documents_itself,
    answers_carry_headers,
    errors_are_its_own,
    nobody_reads_without_a_key,
    nobody_posts_without_a_key,
    strangers_get_no_metrics,
)


def checks_of(there: Deployment) -> tuple[Check, ...]:
    """What is asked, in order."""
    encrypted = (tls_holds,) if there.is_https else ()
    reading = (the_key_reads,) if there.key else ()
    return (*encrypted, *ALWAYS, *reading)


def _require_status(answer: Answer, status: int, what: str, remedy: str, code: str = "") -> None:
    if answer.status != status:
        raise Failed(f"{what} is answered by {f'{answer.status} {code}'.strip()}, not {status}.", remedy)


def _refused(answer: Answer, what: str) -> str:
    if answer.status == 429:
        raise Failed(f"{what} is answered by 429.", "Ask again in a minute.")
    _require_status(answer, 401, what, "Take it off the network until it is: docs/api.md, Keys and Metrics.")
    return "401"


# --- The command ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Ask every check, a line each; 1 if one fails."""
    parser = ArgumentParser(description="Smoke-tests a running deployment, and writes nothing to it.")
    parser.add_argument("url", metavar="URL", nargs="?", default="", help=f"where the API is served, such as {EXAMPLE}")
    parser.add_argument("--version", default=VERSION, help=f"the version that is expected, {VERSION} unless given")
    options = parser.parse_args(arguments)
    at = _address(options.url)
    if at is None:
        said = "URL is http:// or https://, a host, and perhaps a port and a path"
        parser.error(f"{said}: name it, such as {EXAMPLE}, or with make: make verify-deploy URL={EXAMPLE}")
    there = Deployment(at, options.version, os.environ.get(KEY) or None)
    told = [*_asked(there)]
    if None in told:
        print("Nothing else was asked.")
        return 1
    if not there.key:
        print(f"skip the_key_reads: {KEY} is not set.")
    if not there.is_https and not there.is_loopback:
        print("note: keys and ids cross the network unencrypted. Serve it by HTTPS, or let a proxy do so.")
    return 0 if all(told) else 1


def _address(url: str) -> SplitResult | None:
    """The address in its parts; None for what is no address of an API."""
    try:
        at = urlsplit(url)
        usable = at.scheme in ("http", "https") and at.hostname and at.port != 0
    except ValueError:  # a port that is none, or half a bracket
        return None
    return at if usable and not (at.query or at.fragment or at.username) else None


def _asked(there: Deployment) -> Iterator[bool | None]:
    """Whether each check holds, with a line of print; None, and no further one, where nothing answers."""
    for check in checks_of(there):
        try:
            print(f"ok   {check.__name__}: {check(there)}.")
            yield True
        except Failed as failure:
            print(f"FAIL {check.__name__}: {failure}")
            yield False
        except (OSError, http.client.HTTPException, ValueError) as error:
            remedy = "Start the API, name its address, and look at what is before it."
            print(f"FAIL {check.__name__}: {_why(error)} {remedy}")
            yield None
            return


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate does not hold: {error.verify_message}."
    return f"No answer: {type(error).__name__}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
