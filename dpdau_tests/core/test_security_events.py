"""Security events: the first is told at once, what repeats is summed, and none is lost."""

from __future__ import annotations

from collections import Counter
from datetime import date
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.facts import Alert, Override
from dpdau_assets.core.security_events import (
    SUMMED_SECONDS,
    SecurityEvent,
    Sums,
    noted,
    override_alerts,
    told,
)

REFUSED = SecurityEvent("key_refused")
LIMITED = SecurityEvent("limit_reached", "The key product")
NOW = 1_750_000_000.0

steps = st.lists(
    st.tuples(st.sampled_from([REFUSED, LIMITED, None]), st.integers(1, 5), st.floats(0, 2 * SUMMED_SECONDS)),
    max_size=40,
)


def count_of(alert: Alert) -> tuple[str, str, int]:
    return alert.name, alert.fields["about"], int(alert.fields["count"])


@given(steps)
def test_every_event_is_in_exactly_one_alert_or_still_counted_and_no_two_alerts_of_one_come_close_together(
    steps: list[tuple[SecurityEvent | None, int, float]],
) -> None:
    sums: Sums = {}
    now, last, noted_by_now, told_by_now = NOW, dict[str, float](), Counter[str](), Counter[str]()
    for event, count, later in steps:
        now += later
        if event:
            sums = noted(sums, event, count, now)
            noted_by_now[event.kind] += count
        alerts, sums = told(sums, now)
        for name, _, many in map(count_of, alerts):
            told_by_now[name] += many
            assert now - last.get(name, 0) >= SUMMED_SECONDS
            last[name] = now
        kept = Counter({event.kind: sum_.count for event, sum_ in sums.items() if sum_.count})
        assert told_by_now + kept == noted_by_now
    alerts, sums = told(sums, now + SUMMED_SECONDS)
    assert told_by_now + Counter({name: many for name, _, many in map(count_of, alerts)}) == noted_by_now
    assert told(sums, now + 3 * SUMMED_SECONDS) == ([], {})


def test_the_first_is_told_at_once_and_what_repeats_in_one_alert_with_its_number_and_since_when() -> None:
    alerts, sums = told(noted({}, REFUSED, 1, NOW), NOW)
    assert [alert.text for alert in alerts] == ["Requests came with a key that is none, or is revoked."]
    for second in range(1, 8):
        sums = noted(sums, REFUSED, 3, NOW + second)
        alerts, sums = told(sums, NOW + second)
        assert alerts == []
    (alert,), _ = told(sums, NOW + SUMMED_SECONDS)
    assert alert.text.endswith("is revoked. 21 times since 2025-06-15T15:06:41+00:00.")
    assert alert.fields["count"] == "21"


def test_one_key_s_events_do_not_hold_up_those_of_another() -> None:
    other = SecurityEvent("limit_reached", "The key dashboard")
    _, sums = told(noted({}, LIMITED, 1, NOW), NOW)
    alerts, _ = told(noted(sums, other, 1, NOW + 1), NOW + 1)
    assert [alert.text for alert in alerts] == ["The key dashboard has sent more than its limit admits."]


def test_a_clock_that_is_set_back_does_not_silence_anything() -> None:
    _, sums = told(noted({}, REFUSED, 1, NOW), NOW)
    alerts, _ = told(noted(sums, REFUSED, 1, NOW - 10_000), NOW - 10_000)
    assert len(alerts) == 1


def test_each_override_is_told_with_who_and_why_under_a_name_of_its_own() -> None:
    cap = Override("cap", "the board", "a launch", date(2025, 3, 4), "mau", date(2025, 3, 1), Fraction(4))
    again = Override("erasures_submitted", "the board", "all were", date(2025, 3, 5))
    (first, alert), (second, other) = override_alerts([cap, again], 0)
    assert alert.text == "The cap of mau of 2025-03 was set to epsilon 4 by the board: a launch"
    assert "every erasure request" in other.text.lower() and other.fields["who"] == "the board"
    assert [name for name, _ in override_alerts([cap, again], 1)] == [second] != [first]
    assert [name for name, _ in override_alerts([again], 0)] != [first], "a restored ledger may have others there"
