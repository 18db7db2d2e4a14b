"""The digest in the form that Slack's incoming webhooks take (Block Kit); `text` is what notifications show.

Others that take Slack's form may show `text` alone. Source of form and limits:
https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from dpdau_assets.core.reporting.digest import Change, Digest, NewestNumber

MOST_NEEDS = 20
LONGEST_SECTION = 3_000
"""Characters that Slack shows of one section."""

_SHORT = {"dau": "DAU", "mau": "MAU"}
_AGAINST = {1: "the day before", 7: "a week before"}
Block = dict[str, Any]


def slack_message(digest: Digest) -> dict[str, Any]:
    """The body to post."""
    title = f"Active users, published {digest.as_of:%Y-%m-%d}"
    summary = "; ".join(f"{_name(newest)} {_users(newest.number.estimate)}" for newest in digest.numbers)
    needs = f"; {len(digest.needs)} to look at" if digest.needs else ""
    return {"text": escaped(f"{title}: {summary}{needs}"), "blocks": list(_blocks(title, digest))}


def _blocks(title: str, digest: Digest) -> Iterator[Block]:
    yield {"type": "header", "text": {"type": "plain_text", "text": title}}
    for newest in digest.numbers:
        yield _section("\n".join(_number_lines(newest)))
    if digest.restated:
        months = ", ".join(f"{month:%Y-%m}" for month in digest.restated)
        yield _section(escaped(f"Every DAU of {months} was restated, as on this day of every month."))
    yield {"type": "divider"}
    if digest.needs:
        yield _section("*To look at*")
        yield from (_section(f"• {escaped(need)}") for need in digest.needs[:MOST_NEEDS])
        if len(digest.needs) > MOST_NEEDS:
            yield _section(f"• and {len(digest.needs) - MOST_NEEDS} more: `dpdau check`")
    else:
        yield _section("Nothing needs anybody: every check of the store passes.")
    note = "95 % intervals, as in the mart. A change is named where noise alone makes it in 1 of 20 cases at most."
    yield {"type": "context", "elements": [{"type": "mrkdwn", "text": note}]}


def _number_lines(newest: NewestNumber) -> Iterator[str]:
    number = newest.number
    upper = "no bound" if number.upper_95 is None else _users(number.upper_95)
    interval = f"{_users(number.lower_95)} to {upper}"
    yield f"*{_name(newest)}* of {_day(newest.day)}: *{_users(number.estimate)}* ({interval})"
    yield from map(_change_line, newest.changes)
    if newest.compared and not newest.changes:
        yield "No change that exceeds its noise."


def _change_line(change: Change) -> str:
    against = _AGAINST.get(change.days_before, f"{change.days_before} days before")
    difference = f"{change.difference:+,.1f}".replace("-", "−")
    return f"{difference} ± {change.half_width_95:,.1f} against {against}"


def _name(newest: NewestNumber) -> str:
    short = _SHORT.get(newest.metric, newest.metric.upper())
    return short if newest.window_days == 1 else f"{short} ({newest.window_days} days)"


def _day(day: date) -> str:
    return f"{day:%a} {day:%Y-%m-%d}"


def _users(value: float) -> str:
    return f"{value:,.1f}"


def _section(text: str) -> Block:
    shown = text if len(text) <= LONGEST_SECTION else f"{text[: LONGEST_SECTION - 1]}…"
    return {"type": "section", "text": {"type": "mrkdwn", "text": shown}}


def escaped(text: str) -> str:
    """What Slack takes for markup of links and mentions is shown as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
