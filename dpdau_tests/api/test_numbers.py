"""Reading published numbers over HTTP: what the command line says, in three representations, and nothing spent."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dpdau_assets.api.answering import ARROW, CSV, JSON, LARGEST_KEPT, MOST_BYTES_KEPT, MOST_KEPT, AnswerCache, accepted
from dpdau_assets.api.numbers import LONGEST_SERIES
from dpdau_assets.core.budget.overrides import reset_budget
from dpdau_assets.core.errors import BudgetRefused
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish, restate
from dpdau_assets.core.reporting.answers import budget_answer, latest_number, series
from dpdau_assets.core.reporting.as_json import as_json
from dpdau_assets.core.reporting.label import label_on_record
from dpdau_tests.api.asking import asking
from dpdau_tests.conftest import FixedClock, everything_in, prepare, put
from dpdau_tests.support.master_secret import SECRET
from dpdau_tests.support.stores import DAYS, a_month_published
from resources.ledger_sql.database import Database
from resources.published.mart_duckdb import COLUMNS
from resources.published.row_formats import COLUMNS as SENT
from resources.storage.api_key_file import api_key_file
from resources.store import ledger_url

JANUARY = date(2025, 1, 1)
TODAY = date(2025, 2, 8)
NUMBER = "/dau/2025-01-05"
ROUTES = (
    NUMBER,
    "/mau?end=2025-01-31",
    "/series/dau?from=2025-01-01&to=2025-01-31",
    "/budget/mau",
    "/budget/dau?day=2025-01-31",
    "/label/joint",
)
PARQUET = "application/vnd.apache.parquet"

MakeStore = Callable[..., Store]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(today=TODAY, recipe=a_month_published)


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with asking(store) as client:
        yield client


def plain(value: object) -> Any:
    """What a client gets of a result."""
    return json.loads(json.dumps(as_json(value)))


# --- What is answered --------------------------------------------------------------------------------------------


def test_every_number_is_answered_as_the_command_line_answers_it(store: Store, client: TestClient) -> None:
    keys = [release.key for release in store.accountant.releases()]
    assert {key.metric for key in keys} == {"dau", "mau"}
    for key in keys[::5]:
        path = f"/dau/{key.day}" if key.metric == "dau" else f"/mau?end={key.day}&window={key.window_days}"
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"] == JSON
        assert answer.json() == plain(latest_number(key.metric, key.day, key.window_days, None, store))
        assert answer.json()["private"] is True and "exact_value" not in answer.json()


def test_the_window_of_mau_is_the_configured_one_if_none_is_named(client: TestClient) -> None:
    named, unnamed = client.get("/mau?end=2025-01-31&window=30"), client.get("/mau?end=2025-01-31")
    assert named.json() == unnamed.json() and named.json()["window_days"] == 30


def test_a_restated_day_has_both_numbers_and_the_latest_by_itself(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_published)
    restate(JANUARY, store)
    with asking(store) as client:
        revisions = [client.get(f"{NUMBER}{query}").json()["revision"] for query in ("", "?revision=0", "?revision=1")]
        latest = client.get("/series/dau?from=2025-01-01&to=2025-01-31").json()
        first = client.get("/series/dau?from=2025-01-01&to=2025-01-31&as_published=true").json()
    assert revisions == [1, 0, 1]
    assert {row["revision"] for row in latest} == {1} and {row["revision"] for row in first} == {0}


def test_a_series_is_answered_as_the_command_line_answers_it_and_leaves_out_what_is_not_there(
    store: Store, client: TestClient
) -> None:
    first, last = date(2024, 12, 1), date(2025, 3, 1)
    for metric in ("dau", "mau"):
        rows = client.get(f"/series/{metric}?from={first}&to={last}").json()
        assert rows == plain(series(metric, first, last, store.settings, store.accountant))
        assert len(rows) == len(store.accountant.releases(metric))
    assert client.get("/series/dau?from=2031-01-01&to=2031-01-02").json() == []


def test_a_budget_is_that_of_the_days_month_or_of_the_last_published_one(store: Store, client: TestClient) -> None:
    for metric in ("dau", "mau"):
        for query, month in (("", date(2025, 2, 1)), ("?day=2025-01-31", JANUARY), ("?day=2025-01-01", JANUARY)):
            answer = client.get(f"/budget/{metric}{query}").json()
            assert answer == plain(budget_answer(metric, month, store.settings, store.accountant))
            assert answer["charged"]["epsilon"] <= answer["epsilon_cap"]


def test_a_label_is_the_whole_one_or_that_of_one_metric(store: Store, client: TestClient) -> None:
    whole = plain(label_on_record(store.accountant, store.settings))
    assert client.get("/label/joint").json() == whole
    assert set(whole["records"]) == set(whole["facts"]) == {"dau", "mau", "dau_and_mau"}
    for metric in ("dau", "mau"):
        alone = client.get(f"/label/{metric}").json()
        assert alone["records"] == {metric: whole["records"][metric]} and alone["registry"] == whole["registry"]
        assert alone["facts"] == {metric: whole["facts"][metric]}


def test_a_label_that_would_have_to_state_two_mechanisms_is_refused(store: Store) -> None:
    changed = replace(store, settings=replace(store.settings, dau_mechanism="laplace"))
    with asking(changed) as client:
        answer = client.get("/label/dau")
    assert (answer.status_code, answer.json()["code"]) == (409, "Refused")


class NoNoise:
    """A source that fails whoever draws."""

    private = True

    def gaussian(self, sigma: float, draws: int = 1) -> list[int]:
        raise AssertionError("noise was drawn")

    laplace = gaussian


def test_reading_draws_no_noise_and_leaves_every_row_of_the_ledger_as_it_is(store: Store) -> None:
    database = Database(ledger_url(store.settings), SECRET)
    before = everything_in(database)
    with asking(replace(store, noise=NoNoise())) as client:
        statuses = [client.get(path).status_code for path in (*ROUTES, "/dau/2025-02-07", "/mau?end=2025-03-01")]
    assert statuses == [200] * len(ROUTES) + [404, 404]
    assert everything_in(database) == before


# --- What is not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "never", "why", "remedy"),
    [
        ("/dau/2025-02-07", False, "not_due", "`dau_release`"),
        ("/dau/2024-12-31", True, "before_start", "Ask from 2025-01-01 on."),
        ("/mau?end=2025-01-29", True, "before_first_window", "Ask from 2025-01-30 on."),
        ("/mau?end=2025-01-31&window=7", True, "not_made", "Only the configured window"),
        ("/dau/2025-01-05?revision=1", False, "to_come", "`dau_restatement`"),
        ("/dau/9999-12-31", False, "not_due", "Ask for a day that is."),
    ],
)
def test_a_number_that_is_not_there_says_what_makes_it_or_that_nothing_does_and_why(
    client: TestClient, path: str, never: bool, why: str, remedy: str
) -> None:
    answer = client.get(path)
    said = answer.json()
    assert (answer.status_code, said["code"], answer.headers["content-type"]) == (
        404,
        "NotPublished",
        "application/problem+json",
    )
    assert (said["never"], said["why"]) == (never, why) and remedy in said["remedy"]
    assert said["type"] == "/docs/errors#NotPublished"


def test_a_number_that_comes_later_says_when(client: TestClient) -> None:
    said = client.get("/dau/2025-02-07").json()
    assert said["due"] == "2025-02-09" and "due on 2025-02-09" in said["detail"]


def test_a_month_without_any_number_is_said_so_and_what_publishes(make_store: MakeStore) -> None:
    with asking(make_store(today=TODAY)) as client:
        answer = client.get("/budget/dau")
        assert (answer.status_code, answer.json()["code"]) == (404, "NotPublished")
        assert "dpdau run" in answer.json()["remedy"]
        assert client.get("/budget/dau?day=2025-01-31").json()["epsilon_spent"] == 0
        assert client.get("/series/mau?from=2025-01-01&to=2025-02-01").json() == []


def almost_spent(store: Store) -> None:
    """January's cap takes ten numbers of DAU, and they are out."""
    days = [JANUARY + timedelta(days=n) for n in range(12)]
    put(store, [("somebody", day) for day in days])
    prepare(store, days)
    for day in days[:10]:
        publish("dau", day, store)


def test_a_number_that_the_budget_refuses_says_what_is_spent_asked_and_left_and_which_day_fits(
    make_store: MakeStore,
) -> None:
    pure = {"dau_mechanism": "laplace", "epsilon_dau": Fraction(3, 10), "restatements_per_month": 0}
    store = make_store(today=TODAY, recipe=almost_spent, **pure)
    with asking(store) as client:
        answer = client.get("/dau/2025-01-11")
    said = answer.json()
    assert (answer.status_code, said["code"]) == (429, "BudgetRefused")
    assert (said["metric"], said["day"], said["month"], said["next_day"]) == (
        "dau",
        "2025-01-11",
        "2025-01",
        "2025-02-01",
    )
    assert (said["never"], said["why"]) == (True, "no_budget")
    epsilons = [said[name] for name in ("spent", "charged", "asked", "together", "cap")]
    assert epsilons == pytest.approx([3.0, 3.0, 0.3, 3.3, 3.0])
    with pytest.raises(BudgetRefused) as refused:
        publish("dau", date(2025, 1, 11), store)
    assert {name: said[name] for name in refused.value.fields} == plain(refused.value.fields)
    assert "retry-after" not in answer.headers


# --- What is asked wrongly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field", "rule"),
    [
        ("/dau/2025-02-30", "path.day", "written YYYY-MM-DD"),
        ("/dau/1735689600", "path.day", "written YYYY-MM-DD"),
        ("/dau/2025-01-01T00:00:00", "path.day", "written YYYY-MM-DD"),
        ("/dau/20250101", "path.day", "written YYYY-MM-DD"),
        ("/mau?end=٢٠٢٥-٠١-٣١", "query.end", "written YYYY-MM-DD"),
        ("/mau", "query.end", "required"),
        ("/mau?end=2025-01-31&window=0", "query.window", "greater than or equal to 1"),
        ("/mau?end=2025-01-31&window=1e1", "query.window", "plain digits"),
        ("/mau?end=2025-01-31&window=" + "9" * 400, "query.window", "plain digits"),
        ("/dau/2025-01-05?revision=-1", "query.revision", "plain digits"),
        ("/dau/2025-01-05?revision=0_1", "query.revision", "plain digits"),
        ("/series/wau?from=2025-01-01&to=2025-01-02", "path.metric", "'dau' or 'mau'"),
        ("/series/dau?from=2025-01-01", "query.to", "required"),
        ("/series/dau?from=2025-01-02&to=2025-01-01", "query.to", "not before `from`"),
        ("/series/dau?from=2015-01-01&to=2026-01-01", "query.to", "at most 3,700 days"),
        ("/series/dau?from=2025-01-01&to=2025-01-02&as_published=perhaps", "query.as_published", "boolean"),
        ("/budget/dau?day=2024-12-31", "query.day", "from 2025-01-01"),
        ("/budget/dau?day=2035-06-01", "query.day", "to 2035-02-1"),
        ("/label/both", "path.metric", "'dau', 'mau' or 'joint'"),
    ],
)
def test_a_bad_request_is_told_its_field_and_its_rule_and_nothing_of_what_stood_there(
    client: TestClient, path: str, field: str, rule: str
) -> None:
    answer = client.get(path)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (422, "InvalidRequest")
    assert [each["field"] for each in said["errors"]] == [field] and rule in said["errors"][0]["rule"]
    for sent in ("1735689600", "2025-02-30", "wau", "both", "perhaps", "1e1", "99999"):
        assert sent not in answer.text


def test_the_longest_series_is_answered_and_one_day_more_is_not(client: TestClient) -> None:
    last = JANUARY + timedelta(days=LONGEST_SERIES - 1)
    asked = f"/series/dau?from={JANUARY}&to="
    assert len(client.get(f"{asked}{last}").json()) == len(DAYS)
    assert client.get(f"{asked}{last + timedelta(days=1)}").status_code == 422


EVERY_DAY = ("/dau/{}", "/dau/{}?revision=1", "/mau?end={}", "/mau?end={}&window=9999", "/budget/dau?day={}")
EVERY_DAY += ("/budget/mau?day={}", "/series/dau?from={0}&to={0}", "/series/mau?from={}&to=9999-12-31")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(day=st.dates())
@example(day=date.min)
@example(day=date.max)
@example(day=date(9999, 1, 1))
@example(day=date(1, 12, 31))
@example(day=TODAY + timedelta(days=3660))
@example(day=TODAY + timedelta(days=3659))
def test_every_day_that_there_is_can_be_asked_for(client: TestClient, day: date) -> None:
    for path in EVERY_DAY:
        answer = client.get(path.format(day))
        assert answer.status_code in (200, 404, 422), path


# --- Who may ask -------------------------------------------------------------------------------------------------


def test_without_the_scope_nothing_is_read_and_nothing_said_of_what_there_is(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_published)
    _, ingest = api_key_file(store.settings).add("writer", frozenset({"ingest"}), TODAY)
    _, read = api_key_file(store.settings).add("reader", frozenset({"read"}), TODAY)
    with asking(store) as client:
        for path in (*ROUTES, "/dau/2025-02-30", "/mau"):
            unknown, wrong = (
                client.get(path, headers={"X-API-Key": "x"}),
                client.get(path, headers={"X-API-Key": ingest}),
            )
            assert (unknown.status_code, wrong.status_code, wrong.json()["scope"]) == (401, 403, "read")
            assert client.get(path, headers={"X-API-Key": read}).status_code in (200, 422)


# --- Representations ---------------------------------------------------------------------------------------------


def in_csv(answer: Any) -> list[dict[str, str]]:
    assert answer.headers["content-type"] == CSV
    return list(csv.DictReader(io.StringIO(answer.text)))


def in_arrow(answer: Any) -> pa.Table:
    assert answer.headers["content-type"] == ARROW
    return pa.ipc.open_stream(answer.content).read_all()


@pytest.mark.parametrize(
    "path",
    [
        NUMBER,
        "/mau?end=2025-01-31",
        "/series/mau?from=2025-01-01&to=2025-02-28",
        "/series/dau?from=2020-01-01&to=2020-01-01",
    ],
)
def test_the_three_representations_say_the_same(client: TestClient, path: str) -> None:
    json_answer, csv_answer, arrow_answer = (
        client.get(path, headers={"Accept": kind}) for kind in (JSON, "text/csv", ARROW)
    )
    rows = json_answer.json() if isinstance(json_answer.json(), list) else [json_answer.json()]
    read, table = in_csv(csv_answer), in_arrow(arrow_answer)
    assert csv_answer.text.splitlines()[0] == ",".join(COLUMNS) and table.column_names == list(COLUMNS) == list(SENT)
    assert len(read) == table.num_rows == len(rows)
    for row, line, columns in zip(rows, read, table.to_pylist(), strict=True):
        assert columns["day"].isoformat() == line["day"] == row["day"]
        assert columns["published_at"] == datetime.fromisoformat(line["published_at"])
        assert columns["published_at"] == datetime.fromisoformat(row["published_at"])
        for name in ("noisy_value", "estimate", "lower_95", "upper_95", "noisy_statistic", "half_width"):
            assert columns[name] == float(line[name]) == row[name]
        for name in ("window_days", "revision"):
            assert columns[name] == int(line[name]) == row[name]
        for name in ("metric", "mechanism", "mechanism_run", "sketch_impl", "privacy_unit", "version"):
            assert columns[name] == line[name] == row[name]
        assert (
            json.loads(columns["sketch_parameters"])
            == json.loads(line["sketch_parameters"])
            == row["sketch_parameters"]
        )


@pytest.mark.parametrize(
    ("accept", "served"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/*", CSV),
        ("TEXT/CSV", CSV),
        ("text/csv;header=absent", CSV),
        ("text/html, text/csv;q=0.1", CSV),
        ("text/csv;q=0.5, application/json;q=0.4", CSV),
        ("text/csv;q=0.5, */*;q=0.4", CSV),
        ("text/csv;q=0.3, */*;q=0.4", JSON),
        ("application/json;q=0, */*", CSV),
        ("application/json;q=0, text/csv;q=0, */*;q=0.1", ARROW),
        ("application/json;q=0.5, application/*;q=0.7", ARROW),
        (ARROW, ARROW),
        (f"{JSON}, {ARROW}", JSON),
        ("text/html", None),
        ("*/*;q=0", None),
        ("application/json;q=0", None),
        ("nonsense", None),
        ("*/json", None),
        ("text/csv;q=2", None),
        ("text/csv;q=nan", None),
    ],
)
def test_the_representation_that_is_liked_best_is_served(accept: str | None, served: str | None) -> None:
    assert accepted(accept, (JSON, CSV, ARROW)) == served


_RANGES = st.sampled_from(["*/*", "text/*", "application/*", "text/csv", JSON, ARROW, "text/html"])
_QUALITIES = st.sampled_from(["0", "0.1", "0.25", "0.5", "1", "1.000"])


@given(st.lists(st.tuples(_RANGES, _QUALITIES), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_what_is_served_is_as_good_as_anything_else_and_admitted(ranges: list[tuple[str, str]]) -> None:
    by_range = dict(ranges)

    def quality(kind: str) -> float:
        named = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        return next((float(by_range[name]) for name in named if name in by_range), 0.0)

    liked = {served: quality(served.partition(";")[0]) for served in (JSON, CSV, ARROW)}
    chosen = accepted(", ".join(f"{kind};q={value}" for kind, value in ranges), (JSON, CSV, ARROW))
    assert (chosen is None) == (max(liked.values()) == 0)
    assert chosen is None or liked[chosen] == max(liked.values())


def test_what_admits_no_representation_is_406_and_only_where_there_are_several(client: TestClient) -> None:
    answer = client.get(NUMBER, headers={"Accept": PARQUET})
    assert (answer.status_code, answer.json()["code"]) == (406, "NotAcceptable") and PARQUET not in answer.text
    assert client.get("/label/dau", headers={"Accept": "text/html"}).status_code == 200


# --- ETags and what is kept --------------------------------------------------------------------------------------


def test_an_answer_that_is_there_already_is_304_and_each_representation_has_its_own_etag(client: TestClient) -> None:
    etags = set()
    for kind in (JSON, "text/csv", ARROW):
        answer = client.get(NUMBER, headers={"Accept": kind})
        etags.add(etag := answer.headers["etag"])
        assert answer.headers["cache-control"] == "private, no-cache" and answer.headers["vary"] == "Accept"
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = client.get(NUMBER, headers={"Accept": kind, "If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert client.get(NUMBER, headers={"Accept": kind, "If-None-Match": '"other"'}).status_code == 200
    assert len(etags) == 3 and all(len(etag) == 66 and etag.startswith('"') for etag in etags)


def test_every_answer_that_can_be_kept_has_an_etag_that_stays_while_nothing_changes(client: TestClient) -> None:
    for path in ROUTES:
        first, second = client.get(path), client.get(path)
        assert first.content == second.content and first.headers["etag"] == second.headers["etag"]
        assert client.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304


def test_a_restatement_and_an_override_are_seen_at_once(make_store: MakeStore) -> None:
    store = make_store(today=TODAY, recipe=a_month_published)
    with asking(store) as client:
        number, budget = client.get(NUMBER), client.get("/budget/dau?day=2025-01-01")
        restate(JANUARY, store)
        restated = client.get(NUMBER, headers={"If-None-Match": number.headers["etag"]})
        assert (restated.status_code, restated.json()["revision"]) == (200, 1)
        reset_budget("dau", JANUARY, Fraction(5), "Ada", "a test", store)
        changed = client.get("/budget/dau?day=2025-01-01", headers={"If-None-Match": budget.headers["etag"]})
        assert (changed.status_code, changed.json()["epsilon_cap"]) == (200, 5.0)


def test_a_number_is_seen_as_soon_as_it_is_out_and_its_absence_is_not_kept(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    put(store, [("somebody", JANUARY)])
    prepare(store, [JANUARY])
    with asking(store) as client:
        assert client.get(f"/dau/{JANUARY}").status_code == 404
        publish("dau", JANUARY, store)
        assert client.get(f"/dau/{JANUARY}").status_code == 200


def test_what_a_missing_number_is_told_follows_the_day(make_store: MakeStore) -> None:
    store = make_store(today=TODAY)
    with asking(store) as client, asking(replace(store, clock=FixedClock(date(2025, 2, 20)))) as later:
        assert client.get("/dau/2025-02-07").json()["why"] == "not_due"
        assert later.get("/dau/2025-02-07").json()["why"] == "to_come"


def test_an_answer_is_made_once_an_edition_and_again_in_the_next(store: Store) -> None:
    answers, made = AnswerCache(store), []

    def make() -> bytes:
        made.append(store.accountant.edition())
        return made[-1].encode()

    assert [answers.of("question", make).body for _ in range(3)] == [made[0].encode()] * 3
    reset_budget("dau", JANUARY, Fraction(5), "Ada", "a test", store)
    assert answers.of("question", make).body != made[0].encode() and len(made) == 2


def test_what_is_published_while_an_answer_is_made_is_not_missed_by_the_next(store: Store) -> None:
    answers = AnswerCache(store)

    def slowly() -> bytes:
        before = store.accountant.edition()
        reset_budget("dau", JANUARY, Fraction(5), "Ada", "a test", store)
        return before.encode()

    answers.of("question", slowly)
    assert answers.of("question", lambda: b"anew").body == b"anew"


def test_no_more_is_kept_than_is_said_and_nothing_that_is_large(store: Store) -> None:
    answers, made = AnswerCache(store), []

    def make(question: object, size: int) -> bytes:
        made.append(question)
        return bytes(size)

    def ask(question: object, size: int = 10) -> None:
        answers.of(question, lambda: make(question, size))

    for question in range(MOST_KEPT):
        ask(question)
    ask(0)
    assert len(made) == MOST_KEPT, "the first is still there"
    ask("one more")
    ask(0)
    assert len(made) == MOST_KEPT + 1, "the one that was asked for longest ago has gone"
    ask(1)
    assert made[-1] == 1
    for _ in range(2):
        ask("large", LARGEST_KEPT + 1)
    assert made[-2:] == ["large", "large"]
    count = MOST_BYTES_KEPT // LARGEST_KEPT
    for question in range(count + 1):
        ask(("big", question), LARGEST_KEPT)
    ask(("big", count), LARGEST_KEPT)
    assert made[-1] == ("big", count) and made.count(("big", count)) == 1
    ask(("big", 0), LARGEST_KEPT)
    assert made.count(("big", 0)) == 2


def test_answers_are_of_the_store_that_is_open(make_store: MakeStore) -> None:
    """An application that is opened again, on another store with as many rows, does not answer what the first has."""
    stores = [make_store(name, today=TODAY) for name in ("one", "two")]
    said = []
    for store in stores:
        put(store, [(f"user {n}", JANUARY) for n in range(50 if store is stores[0] else 1)])
        prepare(store, [JANUARY])
        publish("dau", JANUARY, store)
        with asking(store) as client:
            said.append(client.get(f"/dau/{JANUARY}").json())
            assert said[-1] == plain(latest_number("dau", JANUARY, 1, None, store))
    assert said[0] != said[1]
