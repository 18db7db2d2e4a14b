"""The outbox: what was put in arrives once with every receiver, in order, whatever fails and whoever delivers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_tests.support.fast_folder import fast_folder
from resources.messages import outbox as module
from resources.messages.delivery import NotDelivered
from resources.messages.outbox import Outbox


class Moody:
    """A receiver that takes what it is sent as long as `moods` says so; afterwards always."""

    def __init__(self, moods: list[bool] | None = None) -> None:
        self.moods = list(moods or [])
        self.taken: list[Any] = []

    def __call__(self, payload: Any) -> None:
        if self.moods and not self.moods.pop(0):
            raise NotDelivered("It is busy.", "Later.")
        self.taken.append(payload)


def deliver(outbox: Outbox) -> bool:
    try:
        outbox.deliver()
    except NotDelivered:
        return False
    return True


@given(
    st.lists(st.one_of(st.none(), st.sets(st.sampled_from("ab"), min_size=1)), max_size=12),
    st.lists(st.booleans(), max_size=12),
    st.lists(st.booleans(), max_size=12),
)
def test_each_receiver_gets_what_was_put_in_for_it_once_and_in_order_whatever_it_refused_in_between(
    steps: list[set[str] | None], moods_of_a: list[bool], moods_of_b: list[bool]
) -> None:
    """None delivers; so does the end, until all has arrived. Each step opens the outbox anew, as another process."""
    receivers = {"a": Moody(moods_of_a), "b": Moody(moods_of_b)}
    sent: dict[str, list[dict[str, int]]] = {"a": [], "b": []}
    with fast_folder() as folder:
        for number, step in enumerate([*steps, *[None] * 26]):
            outbox = Outbox(folder / "messages", receivers)
            if step is None:
                deliver(outbox)
            else:
                outbox.put({name: {"number": number} for name in step})
                for name in step:
                    sent[name].append({"number": number})
    assert {name: receiver.taken for name, receiver in receivers.items()} == sent


def test_a_receiver_that_refuses_holds_up_no_other(tmp_path: Path) -> None:
    silent, good = Moody([False] * 5), Moody()
    outbox = Outbox(tmp_path, {"silent": silent, "good": good})
    for number in range(3):
        outbox.put({"silent": {"number": number}, "good": {"number": number}})
        assert not deliver(outbox)
    assert len(good.taken) == 3 and silent.taken == []


def test_what_was_put_in_under_a_name_is_not_put_in_again(tmp_path: Path) -> None:
    receiver = Moody()
    assert Outbox(tmp_path, {"a": receiver}).put({"a": {"day": 1}}, "digest 1")
    assert not Outbox(tmp_path, {"a": receiver}).put({"a": {"day": 1}}, "digest 1")
    deliver(Outbox(tmp_path, {"a": receiver}))
    assert not Outbox(tmp_path, {"a": receiver}).put({"a": {"day": 1}}, "digest 1")
    deliver(Outbox(tmp_path, {"a": receiver}))
    assert receiver.taken == [{"day": 1}]


def test_two_that_deliver_at_once_send_nothing_twice(tmp_path: Path) -> None:
    begun, go_on, taken = threading.Event(), threading.Event(), []

    def slow(payload: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        taken.append(payload)

    outbox = Outbox(tmp_path, {"a": slow})
    outbox.put({"a": {"number": 1}})
    first = threading.Thread(target=outbox.deliver)
    first.start()
    assert begun.wait(60)
    second = threading.Thread(target=Outbox(tmp_path, {"a": slow}).deliver)
    second.start()
    second.join(60)
    assert not second.is_alive(), "the other one waits for nobody"
    outbox.put({"a": {"number": 2}})
    go_on.set()
    first.join(60)
    outbox.deliver()
    assert taken == [{"number": 1}, {"number": 2}]


def test_what_waits_for_a_receiver_that_is_configured_no_more_is_let_go_of(tmp_path: Path) -> None:
    Outbox(tmp_path, {"a": Moody([False])}).put({"a": {"number": 1}})
    Outbox(tmp_path, {}).deliver()
    late = Moody()
    Outbox(tmp_path, {"a": late}).deliver()
    assert late.taken == []


def test_of_a_receiver_that_stays_away_the_newest_messages_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    receiver = Moody()
    outbox = Outbox(tmp_path, {"a": receiver})
    for number in range(5):
        outbox.put({"a": {"number": number}})
    outbox.deliver()
    assert [payload["number"] for payload in receiver.taken] == [2, 3, 4]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"following": "x", "waiting": {}, "once": [], "sums": []}'])
def test_a_file_that_cannot_be_read_is_told_in_the_log_and_holds_up_nothing(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Moody()
    outbox = Outbox(tmp_path, {"a": receiver})
    outbox.put({"a": {"number": 1}})
    (tmp_path / "outbox.json").write_bytes(damage)
    outbox.put({"a": {"number": 2}})
    outbox.deliver()
    assert receiver.taken == [{"number": 2}]
    assert "cannot be read" in caplog.text


def test_a_store_that_has_told_nobody_anything_has_no_file(tmp_path: Path) -> None:
    Outbox(tmp_path / "messages", {"a": Moody()}).deliver()
    assert not (tmp_path / "messages" / "outbox.json").exists()


def test_its_file_is_its_owner_s_alone_and_whole_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path, {"a": Moody()})
    outbox.put({"a": {"number": 1}})
    file = tmp_path / "outbox.json"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()

    def die(path: Path, write: Callable[..., None]) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_durably", die)
    with pytest.raises(OSError, match="no space"):
        outbox.put({"a": {"number": 2}})
    assert file.read_bytes() == before and json.loads(before)
