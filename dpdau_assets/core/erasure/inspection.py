"""Reading everything back: whether anything of an erased person is left, in any partition or any file at all.

A partition is asked twice: by its store, whether the key is in the set or has left a trace in the sketch, and byte by
byte, for the key and for its hash in a Theta sketch. What waits, in the inbox or in the write-ahead log, is asked by
its reader alone, since it may hold days of all kinds; every other file byte by byte. On days that
the request does not remove the person may be there, and nothing is said of it.
"""

from __future__ import annotations

import hmac
import json
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import numpy as np

from dpdau_assets.core.dates import day_number
from dpdau_assets.core.erasure.byte_scan import Needles
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.events import calendar_day
from dpdau_assets.core.facts import DaySet, Erasure, Keys, Partition, StoredFile
from dpdau_assets.core.identity import data_version
from dpdau_assets.core.parallel import work_ahead
from dpdau_assets.core.ports.state import StateStore
from dpdau_assets.core.ports.store import Events, State, Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.sketches.keysets import places
from dpdau_assets.core.sketches.theta import theta_hashes
from dpdau_assets.core.state.activity import day_version, epochs_of
from dpdau_assets.core.state.day_sketch import sketch_version, traces_in
from dpdau_assets.core.tombstones import Tombstones

HOLDS_USER_DATA: Mapping[str, tuple[str, ...]] = {
    "activity": ("wal", "inbox", "activity", "late"),
    "day_sketch": ("sketches",),
}
"""Each asset that holds people, and the folders of the data directory in which it does. Nothing else may."""

_PARTITION = re.compile(
    r"(?:(activity|late)/day=(\d{4}-\d{2}-\d{2})/epoch=(0|[1-9]\d*)\.parquet"
    r"|(sketches)/day=(\d{4}-\d{2}-\d{2})/epoch=(0|[1-9]\d*)\.sketch)"
)

_STATE_OF = {"activity": "activity", "late": "late", "sketches": "activity"}
"""Whose build each store's files go with."""

IN_SET, IN_BYTES = "the key is in the set", "the key is in the bytes"
IN_SKETCH = "the sketch may not be the same without the key"
FILE_IS_GONE = "its file is gone, and may come back"
KEY_IS_GONE = "the person's keys are all shredded, so nobody can look"

_Read = Callable[[], Iterable[DaySet]]

_NO_KEY = b""  # for content hashes that nobody keeps: the first use of the real key writes it into the ledger


@dataclass(frozen=True, order=True)
class Survivor:
    """Where something of the person is left, or cannot be ruled out to be."""

    file: str
    how: str


@dataclass(frozen=True)
class Inspection:
    """What was read back: `partitions` as JSON, the same for all requests; by receipt, what is left, and the epochs
    under which the person was looked for.
    """

    partitions: str
    survivors: Mapping[str, list[Survivor]]
    epochs: Mapping[str, list[int]]


@dataclass(frozen=True)
class _Found:
    """What one file was found to hold: its keyed content hash, the needles in it, why it could not be read."""

    file: str
    place: Partition | None
    needles: tuple[int, ...]
    problem: str | None
    content_hash: str


def inspect(erasures: Sequence[Erasure], store: Store) -> Inspection:
    """Look for these people in all that is kept. The caller holds the state's lock.

    Cost goes with the size of what is kept, once for all requests together. Raises nothing for a damaged file: it is
    named as one that cannot be vouched for.
    """
    keys = store.erasures.ledger.keys_of(erasure.receipt for erasure in erasures)
    sought = _Sought(erasures, keys)
    files = _read_back(sought, store.state.salts.signing_key(), store)
    survivors = _survivors(sought, files, store)
    return Inspection(
        partitions=json.dumps(_partitions(files, store)),
        survivors={receipt: sorted(left) for receipt, left in survivors.items()},
        epochs={erasure.receipt: sorted(keys.get(erasure.receipt, ())) for erasure in erasures},
    )


def left_of_anyone(store: Store) -> list[Survivor]:
    """What is left of all whose erasure was applied. It only asks: nothing is applied, folded or written.

    Whoever's removal is not applied yet is pending, and not left. Nor is who comes back in a batch that waits: the fold
    that takes it in leaves her out. A batch that cannot be read may hold anyone.
    """
    with store.state.activity.lock():
        erasures = store.erasures.ledger.erasures(("applied", "verified"))
        sought = _Sought(erasures, store.erasures.ledger.keys_of(erasure.receipt for erasure in erasures))
        by_receipt = _survivors(sought, _read_back(sought, _NO_KEY, store), store)
        waiting = {*_segments(store.events), *_batches(store.events)}
    left = {survivor for survivors in by_receipt.values() for survivor in survivors}
    return sorted(survivor for survivor in left if survivor.file not in waiting or survivor.how != IN_SET)


def _read_back(sought: _Sought, signing_key: bytes, store: Store) -> list[_Found]:
    """Every file that is kept, byte by byte."""
    return list(work_ahead(partial(_examined, sought.needles, signing_key, store), store.state.files.files()))


def _survivors(sought: _Sought, files: Sequence[_Found], store: Store) -> dict[str, set[Survivor]]:
    """What is left, by receipt: in the bytes of these files, in the sets and sketches among them, and in the inbox."""
    live = {file.place for file in files if file.place}
    in_sets = list(work_ahead(partial(_members, sought, store), live))
    survivors: dict[str, set[Survivor]] = {receipt: set() for receipt in sought.receipts}
    for receipt, survivor in (
        *(left for file in files for left in sought.in_bytes(file)),
        *(left for in_file in in_sets for left in in_file),
        *(left for name, read in _segments(store.events).items() for left in _in_waiting(sought, name, read)),
        *(left for name, read in _batches(store.events).items() for left in _in_waiting(sought, name, read)),
        *(left for place in live for left in sought.unknowable(place)),
        *(left for place in _missing(live, store.state) for left in sought.everyone(place, FILE_IS_GONE)),
    ):
        survivors[receipt].add(survivor)
    return survivors


class _Sought:
    """The keys of these requests: which request has which, and which must not be in the set of which day."""

    def __init__(self, erasures: Sequence[Erasure], keys: Mapping[str, Mapping[int, int]]) -> None:
        self._erasures = erasures
        self._keyless = [erasure for erasure in erasures if not keys.get(erasure.receipt)]
        self._owners: dict[int, list[Erasure]] = defaultdict(list)
        of_epoch: dict[int, list[tuple[int, Erasure]]] = defaultdict(list)
        for erasure in erasures:
            for epoch, key in keys.get(erasure.receipt, {}).items():
                self._owners[key].append(erasure)
                of_epoch[epoch].append((key, erasure))
        self._add_hashes()
        self._keys = np.array(sorted(self._owners), dtype=np.uint64)
        self._of_epoch = {epoch: _tombstones(removals) for epoch, removals in of_epoch.items()}
        self.needles = Needles(self._keys)

    def _add_hashes(self) -> None:
        """What stands for a key in a Theta sketch is looked for like the key; in other kinds it is the key itself."""
        keys = np.array(list(self._owners), dtype=np.uint64)
        of_key = dict(self._owners)
        for key, other in zip(keys.tolist(), theta_hashes(keys).tolist(), strict=True):
            self._owners[other] = self._owners[other] + of_key[key]

    @property
    def receipts(self) -> list[str]:
        """The receipts of all these requests."""
        return [erasure.receipt for erasure in self._erasures]

    def on(self, day: date, epoch: int) -> Keys:
        """The keys that must not be there, sorted."""
        tombstones = self._of_epoch.get(epoch)
        return self._keys[:0] if tombstones is None else tombstones.removed_on(day)

    def removed(self, keys: Iterable[int], day: date) -> Iterator[str]:
        """The receipts of those who asked to be taken out of this day and have one of these keys."""
        return (erasure.receipt for key in keys for erasure in self._owners[key] if erasure.removes(day))

    def unknowable(self, place: Partition) -> Iterator[tuple[str, Survivor]]:
        """Requests without any key by now, if there still is state of a day that they asked to be taken out of."""
        return (
            (erasure.receipt, Survivor(str(place), KEY_IS_GONE))
            for erasure in self._keyless
            if erasure.removes(place.day)
        )

    def everyone(self, place: Partition, how: str) -> Iterator[tuple[str, Survivor]]:
        """All who asked to be taken out of this day."""
        return (
            (erasure.receipt, Survivor(str(place), how)) for erasure in self._erasures if erasure.removes(place.day)
        )

    def in_bytes(self, examined: _Found) -> Iterator[tuple[str, Survivor]]:
        """Who is left in a file; a file that cannot be read may hold anyone."""
        if examined.problem is not None:
            yield from ((erasure.receipt, Survivor(examined.file, examined.problem)) for erasure in self._erasures)
        for needle in examined.needles:
            for erasure in self._owners[int(self._keys[needle])]:
                if examined.place is None or erasure.removes(examined.place.day):
                    yield erasure.receipt, Survivor(examined.file, IN_BYTES)


def _missing(live: Container[Partition], state: State) -> list[Partition]:
    """Partitions of the state that were written and have no file: an unmounted folder, say.

    One whose first write was cut short never had a file, and the ledger knows it as absent.
    """
    gone = (place for place in sorted(state.builds.all()) if place not in live)
    return [place for place in gone if _state_of(place, state).is_old(place.day, place.epoch)]


def _state_of(place: Partition, state: State) -> StateStore:
    return state.activity if place.store == "activity" else state.late


def _tombstones(removals: Sequence[tuple[int, Erasure]]) -> Tombstones:
    """The removals as tombstones, without what only concerns MAU."""
    rows = [
        (key, day_number(day), bool(erasure.days))
        for key, erasure in removals
        for day in erasure.days or (erasure.through,)
    ]
    keys, days, listed = zip(*rows, strict=True)
    numbers = np.array(days, dtype=np.int32)
    return Tombstones(np.array(keys, dtype=np.uint64), numbers, np.array(listed, dtype=bool), numbers, numbers)


def _examined(needles: Needles, signing_key: bytes, store: Store, file: StoredFile) -> _Found:
    """Byte by byte. Waiting batches are asked row by row instead: they may hold later days."""
    place = partition_of(file.name, store.settings)
    if _is_waiting(file.name, store.events):
        return _Found(file.name, place, (), None, "")
    content = hmac.new(_hash_key(place, signing_key, store.state), file.name.encode(), "sha256")
    try:
        named = needles.found_in([file.name.encode()])
        raw = needles.found_in(_hashed(store.state.files.chunks(file), content))
    except (DpdauError, OSError) as error:
        return _Found(file.name, place, (), _cannot_be_read(error), "")
    needles_found = {*named.tolist(), *raw.tolist()}
    return _Found(file.name, place, tuple(sorted(needles_found)), None, content.hexdigest())


def _hash_key(place: Partition | None, signing_key: bytes, state: State) -> bytes:
    """What a partition held can be tried out by whoever has the key: so it goes with its build."""
    build = state.builds.all().get(replace(place, store=_STATE_OF[place.store])) if place else None
    return build.current.nonce if build and build.current else signing_key


def _hashed(chunks: Iterable[bytes], content: hmac.HMAC) -> Iterator[bytes]:
    for chunk in chunks:
        content.update(chunk)
        yield chunk


def _members(sought: _Sought, store: Store, place: Partition) -> list[tuple[str, Survivor]]:
    """Who is left in a partition, as its own store reads it."""
    name = str(place)
    wanted = sought.on(place.day, place.epoch)
    try:
        present = _present(place, wanted, store.state)
    except DpdauError as error:
        everyone = sought.removed(wanted.tolist(), place.day)
        return [(receipt, Survivor(name, _cannot_be_read(error))) for receipt in everyone]
    how = IN_SKETCH if place.store == "sketches" else IN_SET
    return [(receipt, Survivor(name, how)) for receipt in sought.removed(present, place.day)]


def _present(place: Partition, wanted: Keys, state: State) -> list[int]:
    if place.store == "sketches":
        return _present_in_sketch(place, wanted, state)
    keys = _state_of(place, state).read(place.day, place.epoch)
    return [] if keys is None else keys[places(keys, wanted)].tolist()


def _present_in_sketch(place: Partition, wanted: Keys, state: State) -> list[int]:
    sketch = state.sketches.read(place.day, place.epoch)
    return [] if sketch is None else traces_in(sketch, place.day, wanted, state).tolist()


def _in_waiting(sought: _Sought, name: str, read: _Read) -> Iterator[tuple[str, Survivor]]:
    """Who would be left if this waiting file were kept as it is; the next fold takes them out."""
    try:
        for day_set in read():
            present = day_set.keys[places(day_set.keys, sought.on(day_set.day, day_set.epoch))].tolist()
            for receipt in sought.removed(present, day_set.day):
                yield receipt, Survivor(name, IN_SET)
    except DpdauError as error:
        yield from sought.in_bytes(_Found(name, None, (), _cannot_be_read(error), ""))


def _is_waiting(name: str, events: Events) -> bool:
    if name.startswith("inbox/"):
        return name in _batches(events)
    return name.startswith("wal/") and name in _segments(events)


def _batches(events: Events) -> dict[str, _Read]:
    """The batches that wait in the inbox, by file: how each is read."""
    return {f"inbox/{batch}.parquet": partial(events.inbox.read, [batch]) for batch in events.inbox.batches()}


def _segments(events: Events) -> dict[str, _Read]:
    """Segments of the write-ahead log, by file. Before the batches: one that is sealed meanwhile is a batch by then."""
    return {f"wal/{segment}": partial(events.log.read, segment) for segment in events.log.segments()}


def partition_of(file: str, settings: Settings) -> Partition | None:
    """The partition of which this is the file; None for any other, one that is only named like one included."""
    match = _PARTITION.fullmatch(file)
    if match is None:
        return None
    store, day, epoch = (group for group in match.groups() if group is not None)
    of_day = calendar_day(day)
    is_ours = of_day is not None and int(epoch) in epochs_of(of_day, settings)
    return Partition(store, of_day, int(epoch)) if of_day and is_ours else None


def _version(place: Partition, store: Store) -> str | None:
    """The data version that Dagster shows; of late events, which it does not show, one made alike."""
    try:
        if place.store == "activity":
            return day_version(place.day, store)
        if place.store == "sketches":
            return sketch_version(place.day, store)
        version = store.state.late.version(place.day, place.epoch)
        return data_version(f"late {place.day}", [version.hash]) if version else None
    except DpdauError:
        return None


def _partitions(files: Sequence[_Found], store: Store) -> list[dict[str, object]]:
    """What the receipt says of each partition among these files, in order."""
    content_hashes = {file.place: file.content_hash for file in files if file.place}
    return [
        {
            "store": place.store,
            "day": place.day.isoformat(),
            "epoch": place.epoch,
            "version": _version(place, store),
            "content_hash": content_hashes[place],
        }
        for place in sorted(content_hashes)
    ]


def _cannot_be_read(error: Exception) -> str:
    reason = error.reason if isinstance(error, DpdauError) else type(error).__name__
    return f"it cannot be read: {reason}"
