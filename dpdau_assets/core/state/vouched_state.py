"""State that the ledger vouches for: whatever file lies there, nothing is read of it but what was written last.

Somebody may put an older copy back, of one file or of the whole folder. So each partition is compared with the ledger
by its content, under the nonce of its last build; never by a time or a counter, and never by looking for anybody. A
copy that differs by removals alone is read without those who were removed since. One that lacks events which came
since is refused like a file that is missing: to go on would change days that numbers have read.

Owns the rule: State is read only as it was written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Build, DaySet, Keys, Partition, Version
from dpdau_assets.core.identity import content_hash
from dpdau_assets.core.ports.erasure import ErasureLedger
from dpdau_assets.core.ports.state import Builds, PartitionFiles
from dpdau_assets.core.sketches.keysets import digest, subtract

ABSENT = "absent"
RESTORE = "Put its newest copy back, or restore the data directory and the ledger from the same backup."

Written = tuple[date, int, str]
"""A partition that is about to stand there: its day, epoch and content, which is a digest of keys or `ABSENT`."""


class VouchedState:
    """The port StateStore on files. With `keep_empty` False a partition that would be empty has no file."""

    def __init__(
        self, store: str, files: PartitionFiles, builds: Builds, erasures: ErasureLedger, *, keep_empty: bool
    ) -> None:
        self._store = store
        self._files = files
        self._builds = builds
        self._erasures = erasures
        self._keep_empty = keep_empty

    @contextmanager
    def lock(self) -> Iterator[None]:
        with self._files.lock(), self._builds.held():
            yield

    # Reading

    def stored(self) -> list[tuple[date, int]]:
        return self._files.stored()

    def places(self) -> list[tuple[date, int]]:
        built = {(place.day, place.epoch) for place in self._builds.all() if place.store == self._store}
        return sorted(built.union(self.stored()))

    def is_keyed(self, day: date, epoch: int) -> bool:
        return self._files.is_keyed(day, epoch)

    def build(self, day: date, epoch: int) -> Build:
        return self._builds.all().get(self._partition(day, epoch), Build())

    def is_old(self, day: date, epoch: int) -> bool:
        build, content = self.build(day, epoch), self._content(day, epoch)
        return self._known(build, day, epoch, content) is None or build.without is not None

    def read(self, day: date, epoch: int) -> Keys | None:
        return self._healed(day, epoch) if self.is_old(day, epoch) else self._files.read(day, epoch)

    def digest(self, day: date, epoch: int) -> str | None:
        if self.is_old(day, epoch):
            keys = self.read(day, epoch)
            return None if keys is None else digest(keys)
        return self._files.digest(day, epoch)

    def version(self, day: date, epoch: int) -> Version | None:
        return self._known(self.build(day, epoch), day, epoch, self.digest(day, epoch) or ABSENT)

    # Writing

    def replace(self, sets: Iterable[DaySet], before: Callable[[Sequence[date]], None] = lambda _: None) -> None:
        coming: dict[Partition, Build] = {}

        emptied: list[tuple[date, int]] = []

        def announce(written: Sequence[Written]) -> None:
            self._record_builds(coming)  # those before have taken their places
            coming.clear()
            before([day for day, _, _ in written])
            coming.update(self._announced(written))

        self._files.replace(self._not_empty(sets, emptied), announce)
        self._record_builds(coming)
        if emptied:
            before([day for day, _ in emptied])
            self.discard(emptied)

    def discard(self, places: Iterable[tuple[date, int]]) -> None:
        gone = sorted(set(places))
        coming = self._announced([(*place, ABSENT) for place in gone])
        for place in gone:
            self._files.discard(*place)
        self._record_builds(coming)

    def resume(self) -> None:
        unfinished = {
            place: build for place, build in self._builds.all().items() if place.store == self._store and build.coming
        }
        standing_builds: dict[Partition, Build | None] = {}
        for place, build in unfinished.items():
            with suppress(Refused):  # what cannot be read stays as it is
                content = self._content(place.day, place.epoch)
                standing = self._known(build, place.day, place.epoch, content)
                if standing == build.coming:
                    standing_builds[place] = None if content == ABSENT else Build(standing)
                elif standing:
                    standing_builds[place] = None if content == ABSENT else replace(build, coming=None)
        self._builds.put(standing_builds)

    def repair(
        self, places: Iterable[tuple[date, int]], broken: list[tuple[date, int]] | None = None
    ) -> list[tuple[date, int]]:
        old: list[tuple[date, int]] = []
        gone: list[tuple[date, int]] = []

        def healed() -> Iterator[DaySet]:
            for place in places:
                try:
                    if not self.is_old(*place):
                        continue
                    keys = self._healed(*place)
                except Refused:
                    if broken is None:
                        raise
                    broken.append(place)
                    continue
                old.append(place)
                if keys is None:
                    gone.append(place)
                else:
                    yield DaySet(*place, keys)

        self.replace(healed())
        self.discard(gone)
        return old

    def note_unreadable(self, places: Iterable[tuple[date, int]], applied: int) -> None:
        builds = {self._partition(*place): self.build(*place) for place in places}
        behind = {place: replace(build, without=applied) for place, build in builds.items() if build.without is None}
        self._builds.put({place: build for place, build in behind.items() if build.current})

    def renew(self) -> None:
        fresh = {}
        for day, epoch in self.stored():
            with suppress(Refused):  # what cannot be read stays as it is
                place, content = self._partition(day, epoch), self.digest(day, epoch)
                fresh[place] = Build(self._new_version(place, content)) if content else None
        self._builds.put(fresh)

    def adopt(self, expected: Set[date]) -> None:
        adopted: dict[Partition, Build | None] = {}
        applied = self._erasures.applied()
        for day, epoch in self.places():
            place = self._partition(day, epoch)
            with suppress(Refused):  # of a key that was lost
                keys = self._files.read(day, epoch)
                if keys is not None:
                    left = subtract(keys, self._removed(day, epoch, through=applied))
                    adopted[place] = Build(self._new_version(place, digest(left)))
                elif day not in expected:
                    adopted[place] = None
        self._builds.put(adopted)
        self.repair((place.day, place.epoch) for place, build in adopted.items() if build)

    def forget_through(self, day: date) -> None:
        gone = [place for place in self._builds.all() if place.store == self._store and place.day <= day]
        self._builds.put(dict.fromkeys(gone))

    # What the ledger says

    def _partition(self, day: date, epoch: int) -> Partition:
        return Partition(self._store, day, epoch)

    def _content(self, day: date, epoch: int) -> str:
        return self._files.digest(day, epoch) or ABSENT

    def _known(self, build: Build, day: date, epoch: int, content: str) -> Version | None:
        """The version that this content is, if it is one that the ledger knows. Of nothing, where nothing is known, it
        is one without a nonce.
        """
        if build.current is None and build.coming is None:
            return Version(b"", "") if content == ABSENT else None
        label = str(self._partition(day, epoch))
        versions = [version for version in (build.current, build.coming) if version]
        same = (version for version in versions if content_hash(version.nonce, label, content) == version.hash)
        return next(same, None)

    def _announced(self, written: Iterable[Written]) -> dict[Partition, Build]:
        """Says what is about to stand there, durably; returns what is to be said once it does.

        A content that stays as it is keeps its version, so that nothing which was built from it turns stale.
        """
        coming, standing_builds = {}, {}
        for day, epoch, content in written:
            place, build = self._partition(day, epoch), self.build(day, epoch)
            same = self._known(build, day, epoch, content)
            version = same or self._new_version(place, content)
            if content == ABSENT and build != Build():
                standing_builds[place] = Build()
            elif content != ABSENT:
                standing_builds[place] = Build(version)
            if same is None:
                coming[place] = replace(build, current=self._standing(build, day, epoch), coming=version)
        self._builds.put(coming)
        return standing_builds

    def _new_version(self, place: Partition, content: str) -> Version:
        """The version of a build that was never before."""
        nonce = self._builds.new_nonce()
        return Version(nonce, content_hash(nonce, str(place), content))

    def _standing(self, build: Build, day: date, epoch: int) -> Version:
        """The version of the file that is there: after a fold that was cut short it may be the one that was coming."""
        place = self._partition(day, epoch)
        if build.current is None:
            return self._new_version(place, ABSENT)
        try:
            return (build.coming and self._known(build, day, epoch, self._content(day, epoch))) or build.current
        except Refused:  # damaged, and about to be replaced
            return build.current

    def _record_builds(self, coming: Mapping[Partition, Build]) -> None:
        changed = {place: build for place, build in coming.items() if self._builds.all().get(place, Build()) != build}
        self._builds.put({place: build if build != Build() else None for place, build in changed.items()})

    def _not_empty(self, sets: Iterable[DaySet], emptied: list[tuple[date, int]]) -> Iterator[DaySet]:
        for day_set in sets:
            if len(day_set.keys) or self._keep_empty:
                yield day_set
            else:
                emptied.append((day_set.day, day_set.epoch))

    # Healing

    def _healed(self, day: date, epoch: int) -> Keys | None:
        """What the file would hold if it were the newest, less whoever was removed since it could not be read."""
        build, keys = self.build(day, epoch), self._files.read(day, epoch)
        if keys is None:
            raise Refused(f"The state of {day} is gone: {self._partition(day, epoch)} has no file.", RESTORE)
        if self._known(build, day, epoch, digest(keys)) is None:
            keys = self._newest(keys, build, day, epoch)
        if keys is None or build.without is None:
            return keys
        return subtract(keys, self._removed(day, epoch, after=build.without, through=self._erasures.applied()))

    def _newest(self, keys: Keys, build: Build, day: date, epoch: int) -> Keys | None:
        """The copy less removals: less those that the newest file is without, or is to be, or was when it was begun."""
        applied = self._erasures.applied() if build.without is None else build.without
        for through in (applied, *self._erasures.begun(), None):
            left = subtract(keys, self._removed(day, epoch, through=through))
            if self._known(build, day, epoch, digest(left)):
                return left
            if not len(left) and self._known(build, day, epoch, ABSENT):
                return None
        raise Refused(
            f"The file of {self._partition(day, epoch)} is not the one that was written last: events that came since "
            "are not in it, or it was changed.",
            RESTORE,
            day=day.isoformat(),
        )

    def _removed(self, day: date, epoch: int, *, after: int = 0, through: int | None = None) -> Keys:
        return self._erasures.tombstones(epoch, after=after, through=through).removed_on(day)
