"""The Python of docs/clients.md is run from top to bottom against a real server, and then made to meet what goes wrong.

Where the page waits, time does not pass: what would happen meanwhile is done instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from resource import RLIMIT_FSIZE, prlimit
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_tests.api.serving import KEY, Served, serve
from dpdau_tests.conftest import copied, opened
from dpdau_tests.support.prepared import Prepared
from dpdau_tests.support.project import PROJECT
from dpdau_tests.support.stores import a_month_published

PAGE = PROJECT / "docs" / "clients.md"
EVENTS_A_MINUTE = 4_000


def blocks() -> list[tuple[int, str]]:
    """The page's Python, each block with the line that it begins on."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in found]


@dataclass
class Page:
    """What the page has defined, and how long it has waited.

    Attributes:
        names: its functions and results.
        slept: the seconds of each wait.
        meanwhile: what happens while it waits.
        sent: the requests that were answered, with their answers.
    """

    names: dict[str, Any]
    slept: list[float] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None
    sent: list[httpx.Response] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()

    def run(self) -> None:
        """Every block, in order. A traceback names the page's own lines."""
        for line, source in blocks():
            exec(compile("\n" * (line - 1) + source, PAGE, "exec"), self.names)
            self.names["time"] = SimpleNamespace(sleep=self.wait)
            self.names["api"].event_hooks["response"] = [self.sent.append]

    def afresh(self) -> None:
        """Nothing is waited for, sent or told so far."""
        self.slept.clear()
        self.sent.clear()
        self.meanwhile = lambda: None


@dataclass(frozen=True)
class Run:
    """The page after its run, and the server that it talks to."""

    page: Page
    served: Served
    printed: str


@pytest.fixture(scope="module")
def ran(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("page")
    copied(prepared, a_month_published, folder / "store", date(2025, 2, 8))
    printed: list[str] = []
    page = Page({"print": lambda *words: printed.append(" ".join(map(str, words)))})
    page.meanwhile = lambda: apply_and_verify(opened(folder / "store", datetime.now(UTC).date()))
    with (
        serve(folder, RATE_LIMIT_EVENTS_PER_MINUTE=str(EVENTS_A_MINUTE)) as served,
        pytest.MonkeyPatch.context() as set_,
    ):
        set_.setenv("DPDAU_URL", f"http://127.0.0.1:{served.port}")
        set_.setenv("DPDAU_API_KEY", KEY)
        try:
            page.run()
            yield Run(page, served, "\n".join(printed))
        finally:
            if "api" in page.names:
                page.names["api"].close()


@pytest.fixture
def page(ran: Run) -> Page:
    ran.page.afresh()
    return ran.page


@pytest.fixture
def says(ran: Run) -> dict[str, Any]:
    """What the page had found when its last line was run."""
    return ran.page.names


def events(count: int) -> list[dict[str, str]]:
    return [{"user_id": f"u{n}", "day": "2025-02-07"} for n in range(count)]


def test_events_are_posted_in_batches_and_all_taken(says: dict[str, Any], ran: Run) -> None:
    assert says["taken"] == 1_200
    assert "errors" not in ran.printed


def test_numbers_are_read_with_their_intervals(says: dict[str, Any]) -> None:
    dau, mau = says["dau"], says["mau"]
    assert (dau["metric"], dau["day"], dau["window_days"]) == ("dau", "2025-01-31", 1)
    assert (mau["metric"], mau["day"], mau["window_days"]) == ("mau", "2025-01-31", 30)
    assert dau["lower_95"] <= dau["estimate"] <= dau["upper_95"]
    assert [row["day"] for row in says["rows"]] == [f"2025-01-{day:02}" for day in range(1, 32)]
    assert min(row["noisy_value"] for row in says["rows"]) <= says["average"] <= 100


def test_a_number_that_is_not_there_is_an_error_with_a_code_and_a_remedy(says: dict[str, Any], ran: Run) -> None:
    assert (says["missing"]["code"], says["missing"]["day"], says["missing"]["never"]) == (
        "NotPublished",
        "2025-02-07",
        False,
    )
    assert f"NotPublished False None {says['missing']['remedy']}" in ran.printed


def test_a_request_is_waited_for_until_its_receipt_is_verified_and_is_read_back(says: dict[str, Any], ran: Run) -> None:
    verified, read_back = says["verified"], says["read_back"]
    assert verified["receipt"] == read_back["receipt"] == says["receipt"]
    assert (verified["state"], verified["reference"], verified["survivors"]) == ("verified", "ticket-17", [])
    assert read_back["verified"] and {row["membership"] for row in read_back["partitions"]} <= {"absent", "not asked"}
    assert verified["signature"] and verified["signature"] in ran.printed


def test_one_more_person_than_is_let_through_is_parked_and_not_waited_for(page: Page) -> None:
    receipts = [page.names["erase"](f"u{n}", f"ticket-{n}") for n in range(100, 130)]
    with pytest.raises(RuntimeError, match=r"is parked, to be done by .*: ask an operator"):
        page.names["wait_until_verified"](receipts[-1])
    assert page.slept == []


def test_an_answer_that_has_not_changed_is_not_sent_once_more(page: Page) -> None:
    budget = page.names["read"]("/budget/mau?day=2025-01-31")
    assert budget == page.names["budget"] and budget["month"] == "2025-01"
    (answer,) = page.sent
    assert (answer.status_code, answer.read()) == (304, b"")


def test_a_bad_event_is_named_by_its_place_among_all_and_the_others_are_taken(page: Page) -> None:
    told: list[str] = []
    page.names["print"] = told.append
    assert page.names["post_events"]([*events(7), {"user_id": "u7", "day": "2025-02-30"}, *events(2)], size=5) == 9
    (line,) = told
    assert line.startswith("events[7]: ") and "u7" not in line


def test_a_batch_that_a_full_disk_refused_is_sent_again_when_it_says_with_its_key(page: Page, ran: Run) -> None:
    server = ran.served.process.pid
    usual = prlimit(server, RLIMIT_FSIZE)
    prlimit(server, RLIMIT_FSIZE, (0, usual[1]))  # no file can grow, as on a full disk
    page.meanwhile = lambda: prlimit(server, RLIMIT_FSIZE, usual)
    try:
        assert page.names["post_events"](events(3)) == 3
    finally:
        page.meanwhile()
    refused, taken = page.sent
    assert (refused.status_code, taken.status_code) == (503, 202)
    assert page.slept == [int(refused.headers["Retry-After"])]
    keys = {answer.request.headers["Idempotency-Key"] for answer in page.sent}
    assert len(keys) == 1


def test_who_sends_too_much_waits_as_long_as_the_server_says(page: Page) -> None:
    class Patient(Exception):
        """Waiting has been asked for; that is all there is to see."""

    def enough() -> None:
        raise Patient

    page.meanwhile = enough
    with pytest.raises(Patient):
        page.names["post_events"](events(2 * EVENTS_A_MINUTE), size=EVENTS_A_MINUTE // 2)
    answer = page.sent[-1]
    assert answer.status_code == 429
    assert page.slept == [int(answer.headers["Retry-After"])] and page.slept[0] > 0


def test_a_server_that_is_away_is_asked_again_later_each_time(page: Page) -> None:
    away = httpx.Client(base_url="http://127.0.0.1:1", timeout=5)
    there, page.names["api"] = page.names["api"], away
    try:
        with away, pytest.raises(httpx.ConnectError):
            page.names["ask"]("GET", "/healthz")
    finally:
        page.names["api"] = there
    assert page.slept == [1, 2, 4, 8, 16]


def test_what_waiting_does_not_change_is_raised_at_once(page: Page) -> None:
    with pytest.raises(page.names["DpdauError"], match=r"^422 NoValidRow ") as raised:
        page.names["post_events"]([{"user_id": "", "day": "2025-02-07"}])
    assert raised.value.problem["errors"][0]["index"] == 0
    with pytest.raises(page.names["DpdauError"], match=r"^404 UnknownReceipt "):
        page.names["wait_until_verified"]("0" * 16)
    assert page.slept == [] and len(page.sent) == 2
