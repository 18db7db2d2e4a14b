"""From the rows of one request to what is made durable for it: sorted out by the rules, and keyed. Raw ids end here.

Rows are sorted out as `ingest` does with `--partial`: what is good is taken. Removals are erasure requests and come
first; events are keyed under every epoch that reaches their day.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

import numpy as np

from dpdau_assets.core.dates import day_number, epochs_of_day
from dpdau_assets.core.events import TOO_LONG, Event, Limits, limits_of, plain_day, row_of_object, validate
from dpdau_assets.core.facts import Arrivals
from dpdau_assets.core.identity import KeyedHash, epoch_key_commitment
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.state.limits import first_day, last_day
from dpdau_assets.core.user_ids import normalize

LONGEST_ID = 1_024
"""Characters of a user_id over HTTP."""
LONGEST_METADATA = 16_384
"""Characters and members of an event's metadata over HTTP."""


@dataclass(frozen=True)
class SortedOut:
    """The rows of one request, by what the rules say of them.

    Attributes:
        users: who was active, and when; each id as `Limits.normalize` spells it.
        removals: the distinct removals that '-' rows ask for, in order.
        rejected: place, counted from 0, and reason of each bad row, in order.
        accepted: how many rows are good, removals and repeated ones among them.
    """

    users: tuple[tuple[str, date], ...] = field(repr=False)
    removals: tuple[Event, ...]
    rejected: tuple[tuple[int, str], ...]
    accepted: int

    @cached_property
    def by_reason(self) -> Mapping[str, int]:
        """How many rows each reason rejects, the commonest first."""
        return dict(Counter(reason for _, reason in self.rejected).most_common())


def sorted_out(values: Sequence[object], limits: Limits) -> SortedOut:
    """What the rules of `core.events` say of these decoded JSON values; one that is no object cannot be parsed.

    One that is sound and longer than LONGEST_ID or LONGEST_METADATA is bad too.
    """
    users: list[tuple[str, date]] = []
    removals: dict[Event, None] = {}
    rejected: list[tuple[int, str]] = []
    for place, value in enumerate(values):
        if isinstance(value, dict) and _is_too_long(value):
            rejected.append((place, TOO_LONG))
            continue
        day = plain_day(value, limits)
        if day is not None:
            user_id = normalize(value["user_id"], limits.normalize)  # type: ignore[index]  # which only an object has
            users.append((user_id, day))
            continue
        judged = validate(row_of_object(value), limits)
        if isinstance(judged, str):
            rejected.append((place, judged))
        elif judged.op == "+":
            users.append((judged.user_id, judged.day))
        else:
            removals[judged] = None
    return SortedOut(tuple(users), tuple(removals), tuple(rejected), len(values) - len(rejected))


def _is_too_long(value: Mapping[str, object]) -> bool:
    user_id, metadata = value.get("user_id"), value.get("metadata")
    if isinstance(user_id, str | int) and len(str(user_id)) > LONGEST_ID:
        return True
    return metadata is not None and _places_in(metadata, LONGEST_METADATA) > LONGEST_METADATA


def _places_in(metadata: object, enough: int) -> int:
    """Characters and members of a decoded JSON value, counted until it is enough."""
    counted, rest = 0, [metadata]
    while rest and counted <= enough:
        value = rest.pop()
        counted += len(value) if isinstance(value, str | dict | list) else 1
        if isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list):
            rest += value
    return counted


class Keying:
    """Which days events may have, and the keys of their users, as a store has them at one moment.

    An epoch's key is asked of the store at its first event, and kept for as long as this object is: who makes one anew
    every second or so gives up no more than that to a day that was purged meanwhile, whose events are dropped when they
    are folded.
    """

    def __init__(self, store: Store, before: Keying | None = None) -> None:
        """`before` hands on the keys that it has, but for those that were shredded since."""
        self._store, settings = store, store.settings
        self._rotation, self._longest = settings.hash_salt_rotation_days, settings.mau_window_days
        self.limits = limits_of(settings, first_day(settings, store.accountant), last_day(store.clock))
        shredded = store.state.salts.shredded_through()
        known = {} if before is None else before._hashes
        self._hashes = {epoch: kept for epoch, kept in known.items() if shredded is None or epoch > shredded}

    def arrivals(self, sorted_rows: SortedOut, request: str) -> Arrivals:
        """What has to be durable before the request is acknowledged.

        Raises Refused for an event whose epoch's key is gone: shredded, or lost in a restore.
        """
        by_day: dict[date, set[str]] = defaultdict(set)
        for user_id, day in sorted_rows.users:
            by_day[day].add(user_id)
        days: list[int] = []
        epochs: list[int] = []
        keys: list[bytes] = []
        commitments: dict[int, str] = {}
        for day, user_ids in by_day.items():
            for epoch in epochs_of_day(day, self._rotation, self._longest):
                keyed_hash, commitments[epoch] = self._hash(epoch)
                days += [day_number(day)] * len(user_ids)
                epochs += [epoch] * len(user_ids)
                keys += map(keyed_hash.key_bytes, user_ids)
        return Arrivals(
            days=np.array(days, np.int32),
            epochs=np.array(epochs, np.int32),
            keys=np.frombuffer(b"".join(keys), ">u8").astype(np.uint64),
            commitments=commitments,
            request=request,
            rejected=tuple((place + 1, reason) for place, reason in sorted_rows.rejected),
        )

    def has_keys_of(self, sorted_rows: SortedOut) -> bool:
        """Whether the ledger need not be asked for a key of these."""
        days = {day for _, day in sorted_rows.users}
        return all(epoch in self._hashes for day in days for epoch in epochs_of_day(day, self._rotation, self._longest))

    def _hash(self, epoch: int) -> tuple[KeyedHash, str]:
        if epoch not in self._hashes:
            key = self._store.state.salts.epoch_keys([epoch])[epoch]
            self._hashes[epoch] = KeyedHash(key.secret), epoch_key_commitment(key)
        return self._hashes[epoch]
