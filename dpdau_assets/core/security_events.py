"""What may be an attack, or a decision that a privacy officer has to hear of; and how what repeats is summed.

The first of a kind is told at once. What follows within SUMMED_SECONDS is counted, and told in one alert when that time
is over. Nobody's events or erasures are told: names of keys, of checks, of partitions and of months.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from dpdau_assets.core.facts import Alert, Override

SUMMED_SECONDS = 900.0

Kind = Literal["key_refused", "key_expired", "scope_refused", "limit_reached", "tampering_found"]

_SAID: Mapping[Kind, str] = {
    "key_refused": "Requests came with a key that is none, or is revoked.",
    "key_expired": "Requests came with a key that has expired.",
    "scope_refused": "Requests came with the key {about} for what its scopes do not allow.",
    "limit_reached": "{about} has sent more than its limit admits.",
    "tampering_found": "{about}",
}
KINDS = frozenset(_SAID)
OVERRIDDEN = "budget_overridden"


@dataclass(frozen=True)
class SecurityEvent:
    """One kind of event.

    Attributes:
        about: which key, limit or check it is about; empty where there is only one.
        is_counted: whether an alert may say how often it came; not where that is how many people were asked for.
    """

    kind: Kind
    about: str = ""
    is_counted: bool = True

    @property
    def sentence(self) -> str:
        """For people."""
        return _SAID[self.kind].format(about=self.about)


@dataclass(frozen=True)
class Sum:
    """How often an event came since it was told last.

    Attributes:
        since: when the first of them came, in seconds since 1970.
        told_at: when the event was told last; None for never.
    """

    count: int
    since: float
    told_at: float | None = None

    def due(self, now: float) -> bool:
        """Whether it is to be told now."""
        return self.count > 0 and not self._is_fresh(now)

    def over(self, now: float) -> bool:
        """Whether the event may be forgotten: it was told more than SUMMED_SECONDS ago, and none came since."""
        return self.count == 0 and not self._is_fresh(now)

    def _is_fresh(self, now: float) -> bool:
        return self.told_at is not None and 0 <= now - self.told_at < SUMMED_SECONDS


Sums = Mapping[SecurityEvent, Sum]


def noted(sums: Sums, event: SecurityEvent, count: int, now: float) -> Sums:
    """The sums with so many more of this event."""
    before = sums.get(event, Sum(0, now))
    since = before.since if before.count else now
    return {**sums, event: replace(before, count=before.count + count, since=since)}


def told(sums: Sums, now: float) -> tuple[list[Alert], Sums]:
    """An alert for each event that is due, and the sums that are left once these are out."""
    alerts = [alert_of(event, kept) for event, kept in sums.items() if kept.due(now)]
    left = {event: Sum(0, now, now) if kept.due(now) else kept for event, kept in sums.items() if not kept.over(now)}
    return alerts, left


def alert_of(event: SecurityEvent, kept: Sum) -> Alert:
    """What is told of an event that came so often."""
    since = datetime.fromtimestamp(kept.since, UTC).isoformat(timespec="seconds")
    fields = {"about": event.about, "since": since}
    if not event.is_counted:
        return Alert(event.kind, f"{event.sentence} Since {since}, on a route of erasures.", fields)
    how_often = "" if kept.count == 1 else f" {kept.count} times since {since}."
    return Alert(event.kind, event.sentence + how_often, {**fields, "count": str(kept.count)})


def override_alerts(overrides: list[Override], after: int) -> Iterator[tuple[str, Alert]]:
    """An alert for each override behind the first so many of the ledger, with a name that no other one has."""
    for place, override in enumerate(overrides[after:], after):
        yield f"override {place}: {override}", _override_alert(override)


def _override_alert(override: Override) -> Alert:
    if override.metric and override.month and override.epsilon is not None:
        month = f"{override.month:%Y-%m}"
        what = f"The cap of {override.metric} of {month} was set to epsilon {float(override.epsilon):g}"
        fields = {"metric": override.metric, "month": month}
    else:
        what, fields = "Every erasure request since the restored backup was declared to be submitted again", {}
    who, why = (" ".join(text.split()) for text in (override.who, override.why))
    by = {"who": who, "why": why, "made_on": override.made_on.isoformat()}
    return Alert(OVERRIDDEN, f"{what} by {who}: {why}", {**fields, **by})
