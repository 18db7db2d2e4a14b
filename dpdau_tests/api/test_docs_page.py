"""The pages about the API: what they say, what they load, and that every error is explained alike everywhere."""

from __future__ import annotations

import ast
import html
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from dpdau_assets.api import problems
from dpdau_assets.api.app import app_on
from dpdau_assets.api.docs_page import router
from dpdau_assets.api.error_table import ERRORS, in_markdown
from dpdau_assets.api.problems import problem_of
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import NotTaken
from dpdau_tests.api.asking import asking
from dpdau_tests.support.browser import PICTURES, open_browser
from dpdau_tests.support.project import PROJECT

STATIC = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png", "initialiser.js", "pages.css")
EXPLAINED = {(row.code, row.status) for row in ERRORS}

MakeStore = Callable[..., Store]


@pytest.fixture
def client(make_store: MakeStore) -> Iterator[TestClient]:
    with asking(make_store()) as client:
        del client.headers["X-API-Key"]
        yield client


# --- Errors ------------------------------------------------------------------------------------------------------


def raised_by_the_api() -> Iterator[tuple[str, int]]:
    """Code and status of every problem that the API's source makes, however it is written there."""
    for path in sorted((PROJECT / "dpdau_assets" / "api").glob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name == "Problem" and len(call.args) > 1 and isinstance(call.args[0], ast.Constant):
                assert isinstance(call.args[1], ast.Constant)
                yield str(call.args[0].value), int(str(call.args[1].value))
            codes = [
                given.value.value
                for given in call.keywords
                if given.arg == "code" and isinstance(given.value, ast.Constant)
            ]
            if name == "replace" and codes:
                yield str(codes[0]), problems.UNAUTHORIZED.status


def kinds(kind: type[DpdauError]) -> Iterator[type[DpdauError]]:
    for each in kind.__subclasses__():
        yield each
        yield from kinds(each)


def an(kind: type[DpdauError]) -> DpdauError:
    """An error of this kind, whatever its own kind of beginning asks for."""
    error = kind.__new__(kind)
    DpdauError.__init__(error, "It happened.", "Do something.")
    return error


def test_every_error_that_the_api_answers_is_explained_with_its_status_and_no_other_one() -> None:
    over_http = [kind for kind in kinds(DpdauError) if not issubclass(kind, NotTaken)]  # which are about files
    ours = [problem_of(an(kind)) for kind in over_http]
    known = {(problem.code, problem.status) for problem in ours}
    assert {"NotPublished", "BudgetRefused", "Refused", "BadInput", "BadSetting"} <= {code for code, _ in known}
    assert set(raised_by_the_api()) | known == EXPLAINED
    assert len(EXPLAINED) == len(ERRORS) == len({row.code for row in ERRORS})


def test_the_page_in_docs_has_the_same_table() -> None:
    text = (PROJECT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert in_markdown() in text
    assert re.findall(r'<a id="([^"]+)">', text) == [row.code for row in ERRORS]


def test_the_page_of_errors_has_each_code_for_an_anchor_and_says_what_it_means(client: TestClient) -> None:
    answer = client.get("/docs/errors")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    text = html.unescape(re.sub("<[^>]+>", "", answer.text))
    for row in ERRORS:
        assert f'<tr id="{row.code}">' in answer.text and f">{row.status}<" in answer.text
        assert row.meaning.replace("`", "") in text and row.remedy.replace("`", "") in text


def test_the_type_of_an_error_leads_to_its_place_on_the_page(client: TestClient) -> None:
    path, _, code = client.get("/no/such/path").json()["type"].partition("#")
    assert f'id="{code}"' in client.get(path).text


# --- Pages and files ---------------------------------------------------------------------------------------------


def test_the_pages_need_no_key_and_forbid_what_they_do_not_need(client: TestClient) -> None:
    for path in ("/docs", "/docs/errors"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "script-src 'self' " not in policy and "unsafe-eval" not in policy
        assert "<script>" not in answer.text and "onload" not in answer.text and "http" not in answer.text
    assert "script-src" not in client.get("/docs/errors").headers["content-security-policy"]
    assert client.get("/openapi.json").status_code == 200


def test_every_address_on_the_pages_is_relative_and_leads_to_a_file(client: TestClient) -> None:
    linked = []
    for page in ("/docs", "/docs/errors"):
        for address in re.findall(r'(?:src|href|data-document)="([^#"][^"]*)"', client.get(page).text):
            assert not address.startswith("/")
            answer = client.get(f"{page.rpartition('/')[0]}/{address}")
            assert answer.status_code == 200, address
            linked.append(address.partition("?")[0].rpartition("/")[2])
    assert set(linked) == {*STATIC, "openapi.json"}


def test_a_file_is_kept_for_a_day_and_then_asked_for_by_its_etag(client: TestClient) -> None:
    etags = set()
    for name in STATIC:
        answer = client.get(f"/docs/static/{name}")
        etags.add(etag := answer.headers["etag"])
        assert answer.headers["cache-control"] == "public, max-age=86400"
        again = client.get(f"/docs/static/{name}", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
    assert len(etags) == len(STATIC)


@pytest.mark.parametrize(
    "name",
    [
        "redoc.standalone.js",
        "../docs_page.py",
        "..%2fdocs_page.py",
        "%2e%2e/docs_page.py",
        "",
        "initialiser.js/",
        "pages.css%00",
        ".",
        "/etc/passwd",
    ],
)
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/docs/static/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "NotFound")


def test_the_pages_are_not_in_the_document(client: TestClient) -> None:
    assert router.routes and not [
        path for path in client.get("/openapi.json").json()["paths"] if path.startswith("/docs")
    ]


# --- In a browser ------------------------------------------------------------------------------------------------


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The application on a free port, until the end of the block."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.browser
def test_the_document_is_shown_without_an_error_and_nothing_is_loaded_from_elsewhere(make_store: MakeStore) -> None:
    store = make_store()
    with listening(app_on(store.settings, store)) as address, open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{address}/docs")
        page.get_by_text("/dau/{day}").first.wait_for()
        page.screenshot(path=PICTURES / "api-docs.png")
        page.get_by_text("/dau/{day}").first.click()
        page.get_by_text("The day that is counted.").first.wait_for()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_placeholder("day").first.fill("2025-01-05")
        page.get_by_role("button", name="Execute").click()
        page.locator(".responses-table.live-responses-table").wait_for()
        page.screenshot(path=PICTURES / "api-docs-dau.png", full_page=True)
        page.goto(f"{address}/docs/errors#BudgetRefused")
        page.get_by_role("heading", name="Errors").wait_for()
        page.screenshot(path=PICTURES / "api-errors.png")
    hosts = {re.match("[a-z]+://[^/]*", url)[0] for url in asked if not url.startswith("data:")}  # type: ignore[index]
    assert hosts == {address}
    assert [text for text in wrong if "401" not in text] == []  # which is the answer to a request without a key


def test_every_reason_why_a_number_is_not_there_is_on_the_page_and_no_other_one() -> None:
    source = (PROJECT / "dpdau_assets" / "core" / "budget" / "prospects.py").read_text()
    given = set(re.findall(r'(?:_never|Prospect)\(\s*(?:(?:True|False),\s*)?"(\w+)"', source))
    page = (PROJECT / "docs" / "errors.md").read_text().partition("## Why a number is not there")[2]
    listed = {
        why for row in page.splitlines() if row.startswith("| `") for why in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert listed == given and len(given) > 10
