"""No answer to a request for erasure tells if anybody knows the person: not its status, headers, shape or length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from fractions import Fraction
from itertools import count
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dpdau_assets.core.dates import epoch_of
from dpdau_assets.core.erasure.receipts import apply_and_verify
from dpdau_assets.core.identity import user_key
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.state.activity import process_days
from dpdau_tests.api.asking import asking
from dpdau_tests.conftest import put
from dpdau_tests.support.lengths import at_length
from dpdau_tests.support.stores import a_month_published

TODAY = date(2025, 2, 8)
DAY = date(2025, 1, 5)
OTHERS = [(f"other-{n}", DAY + timedelta(days=n % 3)) for n in range(20)]

MakeStore = Callable[..., Store]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    store = make_store(today=TODAY)
    put(store, OTHERS)
    process_days([DAY], store)
    return store


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with asking(store) as client:
        yield client


def become_known(user_id: str, client: TestClient, store: Store) -> None:
    """By an event, which is folded: the state then has the user's key."""
    assert client.post("/event", json={"event": {"user_id": user_id, "day": str(DAY)}}).status_code == 202
    process_days([DAY], store)
    assert is_known(user_id, store)


def is_known(user_id: str, store: Store) -> bool:
    epoch = epoch_of(DAY, store.settings.hash_salt_rotation_days)
    keys = store.state.activity.read(DAY, epoch)
    return keys is not None and user_key(store.state.salts.epoch_keys([epoch])[epoch].secret, user_id) in keys.tolist()


def shape(value: Any) -> Any:
    """What a reader sees of JSON who cannot tell one random name from another: names, order, types and lengths."""
    if isinstance(value, dict):
        return [(name, shape(inner)) for name, inner in value.items()]
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return len(value) if isinstance(value, str) else value


def told(answer: httpx.Response) -> Any:
    """Everything of an answer but the names that are drawn anew for each."""
    headers = [(name, value) for name, value in answer.headers.items() if name != "x-request-id"]
    return answer.status_code, headers, len(answer.headers["x-request-id"]), len(answer.content), shape(answer.json())


IDS = st.text(min_size=1, max_size=200) | st.sampled_from(
    ["ß", "e\u0301", "\u202e", "🙂" * 30, "a b", "-", "0", "O'Neil;"]
)
SCOPES = st.sampled_from(
    [{}, {"through": "2025-01-20"}, {"days": ["2025-01-05", "2025-01-31"]}, {"days": ["2024-12-01"]}]
)
REFERENCES = st.sampled_from([{}, {"reference": "ticket-1"}])
EXAMPLES = settings(
    max_examples=at_length(test=6, ci=60, soak=400),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.also_long
@EXAMPLES
@given(stem=IDS, scope=SCOPES, reference=REFERENCES, known_first=st.booleans())
@example(stem="anna", scope={}, reference={}, known_first=True)
def test_a_request_for_someone_known_is_answered_as_one_for_nobody(
    store: Store, client: TestClient, stem: str, scope: Any, reference: Any, known_first: bool
) -> None:
    known, unknown = fresh(stem, client, store)
    pair = (known, unknown) if known_first else (unknown, known)
    answers = [client.post("/erasure", json={"user_id": user, **scope, **reference}) for user in pair]
    assert answers[0].status_code == 202 and told(answers[0]) == told(answers[1])
    shown = [client.get(f"/erasure/{answer.json()['receipts'][0]}") for answer in answers]
    assert shown[0].status_code == 200 and told(shown[0]) == told(shown[1])


@pytest.mark.also_long
@EXAMPLES
@given(stem=IDS, known_first=st.booleans(), listed=st.booleans())
def test_a_removal_among_events_of_someone_known_is_answered_as_one_of_nobody(
    store: Store, client: TestClient, stem: str, known_first: bool, listed: bool
) -> None:
    known, unknown = fresh(stem, client, store)
    pair = (known, unknown) if known_first else (unknown, known)
    metadata = {"metadata": {"days": [str(DAY)]}} if listed else {}
    removal = {"op": "-", "day": str(DAY), **metadata}
    answers = [client.post("/event", json={"events": [{"user_id": user, **removal}]}) for user in pair]
    assert answers[0].status_code == 202 and told(answers[0]) == told(answers[1])


_numbers = count()


def fresh(stem: str, client: TestClient, store: Store) -> tuple[str, str]:
    """Two ids of one length that were never asked for: of one who is known by now, and of nobody."""
    number = next(_numbers)
    usable = "".join(letter for letter in stem if not "\ud800" <= letter <= "\udfff")
    known, unknown = f"{usable}{number:06}a", f"{usable}{number:06}b"
    become_known(known, client, store)
    assert not is_known(unknown, store)
    return known, unknown


def test_many_at_once_are_answered_by_their_number_alone(store: Store, client: TestClient) -> None:
    known = [f"known-{n}" for n in range(4)]
    for user in known:
        become_known(user, client, store)
    groups = (known, [f"nobody{n}" for n in range(4)], [*(f"xnown-{n}" for n in range(2)), "other-1", "other-2"])
    answers = [client.post("/erasure", json=[{"user_id": user} for user in group]) for group in groups]
    assert answers[0].status_code == 202
    assert told(answers[0]) == told(answers[1]) == told(answers[2])


def test_the_guard_counts_who_is_asked_for_and_not_who_is_found(make_store: MakeStore) -> None:
    """By one client's day: of known and unknown people alike, the same one is the first that is parked."""
    said, numbers = [], []
    for name, users in (
        ("known", ["user 0", "user 1", "user 2", "she"]),
        ("unknown", [f"nobody {n}" for n in range(4)]),
    ):
        store = make_store(name, today=TODAY, recipe=a_month_published)
        numbers.append([release.noisy_value for release in store.accountant.releases("mau")])
        with asking(store, erasure_guard_share=Fraction(1, 1000)) as client:
            said.append([client.post("/erasure", json={"user_id": user}) for user in users])
    assert numbers[0] == numbers[1], "both stores are copies of one"
    assert [answer.json()["parked"] for answer in said[0]] == [False, True, True, True]
    assert list(map(told, said[0])) == list(map(told, said[1]))


def test_receipts_say_alike_of_both_before_they_are_applied_and_after(store: Store, client: TestClient) -> None:
    client.post("/erasure", json={"user_id": "the first, whose receipt follows none"})
    assert apply_and_verify(store).verified == 1
    become_known("she", client, store)
    receipts = [
        client.post("/erasure", json={"user_id": user, "through": "2025-01-20"}).json()["receipts"][0]
        for user in ("she", "who")
    ]
    for verify in ("", "?verify=1"):
        assert told(client.get(f"/erasure/{receipts[0]}{verify}")) == told(
            client.get(f"/erasure/{receipts[1]}{verify}")
        )
    assert apply_and_verify(store).verified == 2
    after = [client.get(f"/erasure/{receipt}?verify=1") for receipt in receipts]
    assert after[0].json()["verified"] and told(after[0]) == told(after[1])


def test_what_is_compared_tells_answers_of_different_requests_apart(client: TestClient) -> None:
    one = client.post("/erasure", json={"user_id": "nobody"})
    for other in ({"user_id": "x", "reference": "ticket-1"}, {"user_id": "y", "days": ["2024-12-01"]}, {"user_id": ""}):
        assert told(client.post("/erasure", json=other)) != told(one)
