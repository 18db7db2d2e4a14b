"""The digest as it is posted: in Slack's form, within its limits, and nothing of it read as markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.reporting.digest import Change, Digest, NewestNumber
from dpdau_assets.core.reporting.report_model import Number
from resources.messages.slack import LONGEST_SECTION, slack_message

DAY = date(2025, 3, 1)
NUMBER = Number(0, 1234.56, 1234.56, 1221.1, 1247.9, date(2025, 3, 3))
DIGEST = Digest(
    as_of=date(2025, 3, 3),
    numbers=(
        NewestNumber("dau", 1, DAY, NUMBER, (Change(date(2025, 2, 28), 1, -321.5, 18.0),), 2),
        NewestNumber("mau", 30, DAY, NUMBER, (), 2),
    ),
    restated=(date(2025, 2, 1),),
    needs=("published_on_time: 1 day(s) are due and not declared complete (2025-03-02).",),
)


def sections(digest: Digest) -> list[str]:
    return [block["text"]["text"] for block in slack_message(digest)["blocks"] if block["type"] == "section"]


def test_a_message_has_the_numbers_with_intervals_the_changes_and_what_needs_somebody() -> None:
    message = slack_message(DIGEST)
    assert message["text"] == "Active users, published 2025-03-03: DAU 1,234.6; MAU (30 days) 1,234.6; 1 to look at"
    assert message["blocks"][0]["text"] == {"type": "plain_text", "text": "Active users, published 2025-03-03"}
    assert sections(DIGEST) == [
        "*DAU* of Sat 2025-03-01: *1,234.6* (1,221.1 to 1,247.9)\n−321.5 ± 18.0 against the day before",
        "*MAU (30 days)* of Sat 2025-03-01: *1,234.6* (1,221.1 to 1,247.9)\nNo change that exceeds its noise.",
        "Every DAU of 2025-02 was restated, as on this day of every month.",
        "*To look at*",
        "• published_on_time: 1 day(s) are due and not declared complete (2025-03-02).",
    ]


def test_a_day_on_which_nothing_needs_anybody_says_so() -> None:
    assert sections(replace(DIGEST, needs=()))[-1] == "Nothing needs anybody: every check of the store passes."


def test_a_number_without_an_upper_bound_and_a_first_number_are_told_as_such() -> None:
    first = NewestNumber("dau", 1, DAY, replace(NUMBER, upper_95=None), (), 0)
    assert sections(replace(DIGEST, numbers=(first,), restated=(), needs=()))[0] == (
        "*DAU* of Sat 2025-03-01: *1,234.6* (1,221.1 to no bound)"
    )


@pytest.mark.parametrize("text", ["<!channel> look", "<https://evil.example|here>", "a & b"])
def test_what_slack_would_take_for_a_mention_or_a_link_is_shown_as_it_is(text: str) -> None:
    shown = sections(replace(DIGEST, needs=(text,)))[-1]
    assert (
        "<" not in shown
        and ">" not in shown
        and shown.count("&") == text.count("&") + text.count("<") + text.count(">")
    )


@given(st.lists(st.text(max_size=5_000), max_size=60))
def test_every_message_is_within_slacks_limits(needs: list[str]) -> None:
    message = slack_message(replace(DIGEST, needs=tuple(needs)))
    assert len(message["blocks"]) <= 50
    for block in message["blocks"]:
        if block["type"] == "section":
            assert 1 <= len(block["text"]["text"]) <= LONGEST_SECTION
        if block["type"] == "header":
            assert len(block["text"]["text"]) <= 150
