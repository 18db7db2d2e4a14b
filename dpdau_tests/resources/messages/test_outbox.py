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
from resources.messages.delivery import NotDelivered, NotKept, Unwanted
from resources.messages.outbox import REST_SECONDS, Outbox

PATIENCE = 60.0


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
        outbox.deliver(PATIENCE)
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
    for number in range(3):
        outbox = Outbox(tmp_path, {"silent": silent, "good": good})
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


def test_the_name_of_a_message_for_nobody_is_not_remembered(tmp_path: Path) -> None:
    """A command without receivers tells of an override; the daemon, which has some, is to tell of it all the same."""
    assert Outbox(tmp_path, {}).put({}, "override 0")
    receiver = Moody()
    assert Outbox(tmp_path, {"a": receiver}).put({"a": {"number": 1}}, "override 0")
    deliver(Outbox(tmp_path, {"a": receiver}))
    assert receiver.taken == [{"number": 1}]


def test_two_that_deliver_at_once_send_nothing_twice(tmp_path: Path) -> None:
    begun, go_on, taken = threading.Event(), threading.Event(), []

    def slow(payload: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        taken.append(payload)

    outbox = Outbox(tmp_path, {"a": slow})
    outbox.put({"a": {"number": 1}})
    first = threading.Thread(target=outbox.deliver, args=(PATIENCE,))
    first.start()
    assert begun.wait(60)
    Outbox(tmp_path, {"a": slow}).deliver(PATIENCE)  # as another process: it waits for nobody
    outbox.put({"a": {"number": 2}})
    go_on.set()
    first.join(60)
    outbox.deliver(PATIENCE)
    assert taken == [{"number": 1}, {"number": 2}]


def test_what_waits_for_a_receiver_stays_when_a_process_delivers_that_does_not_know_it(tmp_path: Path) -> None:
    """A command in a shell without the variable, say."""
    Outbox(tmp_path, {"a": Moody()}).put({"a": {"number": 1}}, "digest 1")
    Outbox(tmp_path, {}).deliver(PATIENCE)
    late = Moody()
    Outbox(tmp_path, {"a": late}).deliver(PATIENCE)
    assert late.taken == [{"number": 1}]


def test_a_receiver_that_takes_for_ever_is_waited_for_no_longer_than_asked_and_holds_up_no_other(
    tmp_path: Path,
) -> None:
    go_on, begun, good = threading.Event(), threading.Event(), Moody()

    def dripping(payload: Any) -> None:
        begun.set()
        go_on.wait(30)

    outbox = Outbox(tmp_path, {"dripping ops@example.org": dripping, "good": good})
    outbox.put({"dripping ops@example.org": {"number": 1}, "good": {"number": 1}})
    try:
        with pytest.raises(NotDelivered, match=r"^DRIPPING takes its time"):
            outbox.deliver(0.5)
        assert begun.is_set() and good.taken == [{"number": 1}]
        outbox.put({"dripping ops@example.org": {"number": 2}, "good": {"number": 2}})
        with pytest.raises(NotDelivered):
            outbox.deliver(PATIENCE)  # which is not waited for: it was once
        assert good.taken == [{"number": 1}, {"number": 2}], "it is still being sent to, and once"
        assert [thread.name for thread in threading.enumerate()].count("messages to dripping ops@example.org") == 1
    finally:
        go_on.set()


def test_what_a_receiver_refuses_for_good_is_let_go_of_and_the_next_one_arrives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Any] = []

    def strict(payload: Any) -> None:
        if payload["number"] == 1:
            raise Unwanted.by("ALERT_WEBHOOK", 413)
        taken.append(payload)

    outbox = Outbox(tmp_path, {"a": strict})
    for number in (1, 2):
        outbox.put({"a": {"number": number}})
    outbox.deliver(PATIENCE)
    assert taken == [{"number": 2}] and "refuses a message for good (413)" in caplog.text


def test_an_error_of_another_kind_is_one_that_is_sent_again_and_does_not_tell_what_it_says(tmp_path: Path) -> None:
    def broken(payload: Any) -> None:
        raise RuntimeError("s3cret")

    outbox = Outbox(tmp_path, {"alert_webhook": broken})
    outbox.put({"alert_webhook": {"number": 1}})
    with pytest.raises(NotDelivered, match=r"ALERT_WEBHOOK did not take a message \(RuntimeError\)") as caught:
        outbox.deliver(PATIENCE)
    assert "s3cret" not in str(caught.value)
    later = Moody()
    Outbox(tmp_path, {"alert_webhook": later}).deliver(PATIENCE)
    assert later.taken == [{"number": 1}]


def test_a_process_leaves_a_receiver_alone_for_a_while_after_it_took_nothing(tmp_path: Path) -> None:
    now, receiver = [0.0], Moody([False])
    outbox = Outbox(tmp_path, {"a": receiver}, lambda: now[0])
    outbox.put({"a": {"number": 1}})
    assert not deliver(outbox)
    for second in (1, REST_SECONDS - 1):
        now[0] = second
        assert deliver(outbox) and receiver.taken == []
    now[0] = REST_SECONDS
    assert deliver(outbox) and receiver.taken == [{"number": 1}]


def test_what_has_arrived_is_not_sent_again_where_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while it is being sent."""
    taken: list[Any] = []

    def receiver(payload: Any) -> None:
        taken.append(payload)
        patch.setattr(module, "write_durably", full)

    outbox = Outbox(tmp_path, {"a": receiver})
    outbox.put({"a": {"number": 1}})
    with monkeypatch.context() as patch:
        for _ in range(3):
            with pytest.raises(NotKept):
                outbox.deliver(PATIENCE)
    outbox.deliver(PATIENCE)
    Outbox(tmp_path, {"a": receiver}).deliver(PATIENCE)
    assert taken == [{"number": 1}]


def test_nothing_is_sent_where_its_arrival_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Moody()
    Outbox(tmp_path, {"a": receiver}).put({"a": {"number": 1}})
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", full)
        for _ in range(3):  # as processes, which know nothing of one another
            with pytest.raises(NotKept):
                Outbox(tmp_path, {"a": receiver}).deliver(PATIENCE)
    assert receiver.taken == []
    Outbox(tmp_path, {"a": receiver}).deliver(PATIENCE)
    assert receiver.taken == [{"number": 1}]


def test_a_message_that_comes_while_the_file_is_damaged_under_a_sender_is_not_taken_for_what_was_sent(
    tmp_path: Path,
) -> None:
    taken: list[Any] = []

    def receiver(payload: Any) -> None:
        if not taken:
            (tmp_path / "outbox.json").write_bytes(b"{")
            Outbox(tmp_path, {}).put({"a": {"number": 2}})
        taken.append(payload)

    Outbox(tmp_path, {"a": receiver}).put({"a": {"number": 1}})
    deliver(Outbox(tmp_path, {"a": receiver}))
    deliver(Outbox(tmp_path, {"a": receiver}))
    assert taken == [{"number": 1}, {"number": 2}]


def full(path: Path, write: Callable[..., None]) -> None:
    raise OSError(28, "No space left on device")


def test_of_a_receiver_that_stays_away_the_newest_messages_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    receiver = Moody()
    outbox = Outbox(tmp_path, {"a": receiver})
    for number in range(5):
        outbox.put({"a": {"number": number}})
    outbox.deliver(PATIENCE)
    assert [payload["number"] for payload in receiver.taken] == [2, 3, 4]


def test_what_waits_for_one_receiver_is_not_let_go_of_for_the_many_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    digests = Moody()
    outbox = Outbox(tmp_path, {"digests": digests})
    outbox.put({"digests": {"number": 0}})
    for number in range(9):
        outbox.put({"absent": {"number": number}})
    outbox.deliver(PATIENCE)
    assert digests.taken == [{"number": 0}]


SUM = {"kind": "key_refused", "about": "", "is_counted": True, "count": 1, "since": 1.0, "told_at": None}
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"following": "x", "waiting": {}, "once": [], "sums": []}',
    json.dumps({"following": 1, "waiting": {"1": 5}, "once": [], "sums": []}).encode(),
    json.dumps({"following": 1, "waiting": {}, "once": [], "sums": [{**SUM, "kind": "another"}]}).encode(),
    json.dumps({"following": 1, "waiting": {}, "once": [], "sums": [{**SUM, "since": float("inf")}]}).encode(),
    json.dumps({"following": 1, "waiting": {}, "once": [], "sums": [{**SUM, "since": 1.8e12}]}).encode(),
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_cannot_be_read_is_moved_aside_told_in_the_log_and_holds_up_nothing(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Moody()
    outbox = Outbox(tmp_path, {"a": receiver})
    outbox.put({"a": {"number": 1}})
    (tmp_path / "outbox.json").write_bytes(damage)
    outbox.put({"a": {"number": 2}})
    outbox.deliver(PATIENCE)
    assert receiver.taken == [{"number": 2}]
    assert "could not be read and was moved aside" in caplog.text
    assert (tmp_path / "outbox.unreadable").read_bytes() == damage


def test_a_store_that_has_told_nobody_anything_has_no_file(tmp_path: Path) -> None:
    Outbox(tmp_path / "messages", {"a": Moody()}).deliver(PATIENCE)
    assert not (tmp_path / "messages" / "outbox.json").exists()


def test_its_file_is_its_owner_s_alone_and_whole_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path, {"a": Moody()})
    outbox.put({"a": {"number": 1}})
    file = tmp_path / "outbox.json"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()

    monkeypatch.setattr(module, "write_durably", full)
    with pytest.raises(NotKept, match="OSError"):
        outbox.put({"a": {"number": 2}})
    assert file.read_bytes() == before and json.loads(before)
