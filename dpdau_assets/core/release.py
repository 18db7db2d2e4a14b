"""The main path: from a day's sketches to a published number, read downwards.

`publish` returns the one number of a key. The first call makes it: the days it reads are sealed, the statistic is
read, and one ledger transaction checks, charges, draws and stores. Every later call reads what was stored. `restate`
does the same for every DAU of a month at once, on the month's public day. Nothing but the noisy values depends on data:
docs/privacy.md, lemma 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dpdau_assets.core import mechanisms
from dpdau_assets.core.accounting import Budget, Charge, admits, charges_for_release
from dpdau_assets.core.activity import require_kept, take_in
from dpdau_assets.core.calendar import mechanism_for, restatement_slot, slot_of
from dpdau_assets.core.day_sketch import read_fresh, read_late, refresh
from dpdau_assets.core.errors import BudgetRefused, Refused
from dpdau_assets.core.facts import Instance, Release, ReleaseKey
from dpdau_assets.core.mechanisms import Gaussian, Laplace, SharedNoise, Stream
from dpdau_assets.core.ports import Books, Clock, Ledger, Noise, Outside
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import unite
from dpdau_assets.core.tombstones import without_held_out
from dpdau_assets.core.version import VERSION
from dpdau_assets.core.windows import (
    days_between,
    epoch_of,
    first_window_end,
    month_days,
    month_end,
    month_of,
    months_read,
    next_month,
    window,
)

# What an operator can set back when a stream's facts differ.
_SET_BY = {
    "sigma": "MAU_BUDGET_TOTAL and DELTA", "filter": "MAU_WINDOW_DAYS", "sensitivity2": "MAU_WINDOW_DAYS",
    "sketch_impl": "SKETCH_IMPL", "kind": "MAU_MECHANISM",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a release needs on the books: its instance, whether that is new, and the charges not made yet."""

    instance: Instance
    is_new: bool
    charges: tuple[Charge, ...]


def publish(metric: Metric, day: date, outside: Outside) -> Release:
    """The release of this metric and day, made now if there is none.

    Raises Refused (BudgetRefused) when the contract or a month's cap forbids it; then nothing was charged or drawn.
    """
    key = ReleaseKey(metric, outside.settings.window_days(metric), day)
    release = outside.ledger.release(key)
    if release is None:
        require_publishable(key, outside)
    while release is None:
        statistics, watermark = read_statistics([key], outside)
        made = commit(statistics, watermark, outside)
        release = made[0] if made else None
    return release


def restate(month: date, outside: Outside) -> list[Release]:
    """The restated DAU of every day of the month that was published: erased users gone, late events in.

    All in one transaction, whether or not anything changed; which days there are follows from what was published.
    Raises Refused before the month's restatement is due, and for a month without numbers or priced without one.
    """
    if month not in outside.ledger.restated():
        require_restatable(month, outside)
        made = None
        while made is None:
            statistics, watermark = read_statistics(restated_keys(month, outside.ledger.releases("dau")), outside)
            made = commit(statistics, watermark, outside)
    again = [
        found for found in outside.ledger.releases("dau") if found.key.revision and month_of(found.key.day) == month
    ]
    return sorted(again, key=lambda found: found.key)


def require_publishable(key: ReleaseKey, outside: Outside) -> None:
    """Ask everything that can be asked before a day is sealed for it."""
    settings = outside.settings
    earliest = first_window_end(settings.start_date, key.window_days)
    if key.day < earliest:
        raise Refused(f"{key.metric} of {key.day} would read days before START_DATE.", f"Ask from {earliest} on.")
    require_ended(key.day, outside.clock)
    require_kept(window(key.day, key.window_days), outside)
    unprocessed = sorted(set(window(key.day, key.window_days)) - outside.ledger.processed())
    if unprocessed:
        missing = f"There is no state for {unprocessed[0]}" + (" and later days" if len(unprocessed) > 1 else "")
        raise Refused(f"{missing}, which {key.metric} of {key.day} reads.", "Materialise `activity` for it.")
    with outside.ledger.transaction() as books:
        if books.release(key) is None:  # another process may have made it since
            plan(key, books, settings)  # asks all that the release itself will ask, and writes nothing


def require_ended(day: date, clock: Clock) -> None:
    """Raises Refused for today and later."""
    if day >= clock.today():
        raise Refused(f"{day} has not ended yet.", "A day is published once it is complete.", day=day.isoformat())


def require_restatable(month: date, outside: Outside) -> None:
    """Raise Refused for a month that has no numbers yet, that is never restated, or whose day has not come."""
    due = restatement_due(month, outside.ledger.instances(), outside.settings)
    last = max((found.key.day for found in outside.ledger.releases("dau")), default=date.min)
    if due is None:
        raise Refused(
            f"No number of DAU is published for {month:%Y-%m}, or none is to be restated.", "See `dpdau dau`."
        )
    if slot_of(outside.settings, last) < due:
        ready = due - timedelta(days=1 + outside.settings.grace_days)
        raise Refused(
            f"{month:%Y-%m} is restated on {due}, and publication has come to {last} only.",
            f"Publish DAU up to {ready} first.", month=f"{month:%Y-%m}", due=due.isoformat(),
        )  # fmt: skip


def restatement_due(month: date, instances: Iterable[Instance], settings: Settings) -> date | None:
    """The public day on which the month is restated, as fixed with its first number; None if it never is."""
    first = min((one for one in instances if one.metric == "dau" and month_of(one.first_day) == month),
                key=lambda one: one.first_day, default=None)  # fmt: skip
    if first is None or first.terms.get("restatements_per_month") == "0":
        return None
    day = int(first.terms.get("restatement_day", settings.restatement_day))
    return restatement_slot(replace(settings, restatement_day=day), month)


def read_statistics(keys: Sequence[ReleaseKey], outside: Outside) -> tuple[dict[ReleaseKey, int], int]:
    """The exact integers that noise goes on, and the watermark of the removals they are without.

    From here on the days they read are sealed: the stream's noise is calibrated for bits that are final, which is
    condition 1 of docs/privacy.md, lemma 2.
    """
    with outside.activity.lock():
        take_in(outside)  # all that was acknowledged by now, and whatever a killed fold left half done
        outside.ledger.seal({day for key in keys for day in window(key.day, key.window_days)})
        watermark = outside.erasures.applied()
        return {key: read_statistic(key, outside) for key in keys}, watermark


def read_statistic(key: ReleaseKey, outside: Outside) -> int:
    """One of them. The caller holds the lock and has sealed the days."""
    days = window(key.day, key.window_days)
    epoch = epoch_of(key.day, outside.settings.hash_salt_rotation_days)
    refresh(days, outside)
    sketches = [(day, read_fresh(day, epoch, outside)) for day in days]
    if key.metric == "mau":
        sketches = without_held_out(sketches, key.day, outside.erasures.tombstones(epoch))
    late = [read_late(key.day, epoch, outside)] if key.revision else []
    return unite([*(sketch for _, sketch in sketches), *late]).statistic()


def commit(statistics: Mapping[ReleaseKey, int], watermark: int, outside: Outside) -> list[Release] | None:
    """Check, charge, draw and store in one transaction; None when the statistics are not what is wanted any more.

    That is when a removal came since they were read, or a first number of a month that is being restated.
    """
    with outside.ledger.transaction() as books:
        stored = [release for key in statistics if (release := books.release(key))]
        if stored:  # by another process; and what is restated is restated whole
            return stored
        if books.removals_recorded() != watermark or not _is_whole(statistics, books):
            return None
        releases = [_made(key, statistic, books, outside) for key, statistic in sorted(statistics.items())]
        spent = {release.instance for release in releases}
        if any(key.revision for key in statistics):  # with its restatement a month ends, under whatever it was begun
            spent |= {one.name for one in books.instances() if isinstance(one.mechanism, SharedNoise)}
        for instance in sorted(spent):
            forget_spent_noise(instance, books, outside.settings)
    return releases


def _made(key: ReleaseKey, statistic: int, books: Books, outside: Outside) -> Release:
    planned = plan(key, books, outside.settings)
    enter(planned, books)
    noisy_value = draw(key, planned.instance, statistic, books, outside.noise)
    release = fact(key, planned.instance, noisy_value, books, outside)
    books.store(release)
    return release


def _is_whole(statistics: Mapping[ReleaseKey, int], books: Books) -> bool:
    """Whether a restatement has every day that was published by now; a first number stands for itself."""
    months = {month_of(key.day) for key in statistics if key.revision}
    return all(set(statistics) == set(restated_keys(month, books.releases("dau"))) for month in months)


def restated_keys(month: date, published: Iterable[Release]) -> list[ReleaseKey]:
    """What the restatement of a month consists of: one number for each day that has a first one."""
    keys = sorted(found.key for found in published)
    return [replace(key, revision=1) for key in keys if month_of(key.day) == month and not key.revision]


def plan(key: ReleaseKey, books: Books, settings: Settings) -> Plan:
    """What this release would open and charge. Raises Refused when its day, a restore or a cap forbids it."""
    require_open(key, books)
    require_in_order(key, books, settings)
    living = living_instance(key, books, settings)
    instance = living or new_instance(key, books, settings)
    try:
        charges = tuple(_admitted(key, instance, books, settings))
    except BudgetRefused as refused:
        raise _explained(refused, key, instance, books) from None
    return Plan(instance, living is None, charges)


def _admitted(key: ReleaseKey, instance: Instance, books: Books, settings: Settings) -> Iterator[Charge]:
    for charge in charges_for_release(key.metric, key.day, key.window_days, instance.mechanism, instance.name):
        made = books.charges(key.metric, charge.month)
        if charge not in made:
            budget = budget_of(key.metric, charge.month, books, settings)
            admits(made, charge, budget)
            yield replace(charge, budget=budget)


def _explained(refused: BudgetRefused, key: ReleaseKey, instance: Instance, books: Books) -> BudgetRefused:
    """Say so if it is refused because another stream would begin while months of the last one are still read."""
    last, last_day = books.last_instance(key.metric, key.window_days), books.last_day(key.metric, key.window_days)
    if last is None or last_day is None or not isinstance(last.mechanism, Stream) or last.name == instance.name:
        return refused
    old, new = ({**one.mechanism.to_json(), **one.terms} for one in (last, instance))
    differing = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    changed = sorted({_SET_BY.get(name, name) for name in differing})
    free = first_window_end(next_month(month_of(last_day)), key.window_days)
    return BudgetRefused(
        f"The stream {last.name} was begun otherwise (see {', '.join(changed)}), so {key.day} would begin another "
        f"one, charged again to every month it reads. {refused.reason}",
        f"Set them back, or go on with {free}, the first day whose window reads no month of the old one.",
        **refused.fields, changed=changed, next_day=free.isoformat(),
    )  # fmt: skip


def budget_of(metric: Metric, month: date, books: Books | Ledger, settings: Settings) -> Budget:
    """A month keeps the cap and the δ that it was first charged under; an override on record gives it another cap."""
    cap, delta = books.cap(metric, month), books.delta(metric, month)
    return Budget(settings.cap(metric) if cap is None else cap, settings.delta if delta is None else delta)


def require_in_order(key: ReleaseKey, books: Books, settings: Settings) -> None:
    """A stream's days follow one another: its first is wherever it begins, then none is skipped or gone back to."""
    last = books.last_day(key.metric, key.window_days)
    if settings.mechanism(key.metric) != Stream.name or last is None:
        return
    following = last + timedelta(days=1)
    if key.day == following or (key.day > last and living_instance(key, books, settings) is None):
        return
    raise Refused(
        f"{key.metric} was last published for {last}; {key.day} does not follow it.",
        f"Publish {following} next; days before the first published one stay without a number.",
        day=key.day.isoformat(), next_day=following.isoformat(),
    )  # fmt: skip


def require_open(key: ReleaseKey, books: Books) -> None:
    """With its restatement a month is closed, since the noise that its numbers share is destroyed.

    So is one that a restored ledger may have lost numbers of, and every month until erasures are in force again.
    """
    if key.metric == "dau" and month_of(key.day) in books.restated() and not key.revision:
        raise Refused(
            f"{key.day:%Y-%m} was restated, so {key.day} gets no number any more.",
            "Days that were not published by then stay without one.", day=key.day.isoformat(),
        )  # fmt: skip
    if books.awaits_erasures():
        raise Refused(
            "The ledger was restored, and erasure requests made since the backup may be missing.",
            "Submit them again, then `dpdau reopen --who NAME --why TEXT`.",
        )
    closed = [month for month in months_read(key.day, key.window_days) if books.is_closed(key.metric, month)]
    if closed:
        raise Refused(
            f"{key.metric} of {key.day} reads {closed[-1]:%Y-%m}, of which numbers may have been lost in a restore.",
            "Go on with the first day that reads no such month, or have the month opened on the record: "
            "`dpdau reset-budget`.", day=key.day.isoformat(), month=f"{closed[-1]:%Y-%m}",
        )  # fmt: skip


def living_instance(key: ReleaseKey, books: Books, settings: Settings) -> Instance | None:
    """The instance that the release goes on with, None where one is to be opened.

    A month of shared noise keeps what it was opened with, whatever the settings say by now. A stream is one mechanism
    for ever: with other settings, or after a restore that may have lost numbers of it, another one begins.
    """
    wanted = new_instance(key, books, settings)
    if not isinstance(wanted.mechanism, Stream):
        return books.instance(wanted.name)
    last = books.last_instance(key.metric, key.window_days)
    same = last is not None and (last.mechanism, last.terms) == (wanted.mechanism, wanted.terms)
    return last if same else None


def new_instance(key: ReleaseKey, books: Books, settings: Settings) -> Instance:
    """The instance that this release would open under these settings."""
    mechanism, month = mechanism_for(settings, key.metric, month_of(key.day)), month_of(key.day)
    terms = terms_of(key.metric, settings)
    match mechanism:
        case SharedNoise():
            first_day, label, lost = month, f"{month:%Y-%m}", books.closures(key.metric, month)
        case Stream():
            first_day, label, lost = key.day, f"from-{key.day}", books.closures(key.metric)
        case _:
            first_day, label = key.day, f"{key.day}-r{key.revision}"
            lost = sum(books.closures(key.metric, read) for read in months_read(key.day, key.window_days))
    if lost:  # numbers of an instance before it, which another one must not share noise or charges with
        label, terms = f"{label}-after-{lost}", {**terms, "closures_before": str(lost)}
    name = f"{key.metric}-{key.window_days}-{mechanism.name}-{label}"
    return Instance(name, key.metric, key.window_days, first_day, mechanism, terms)


def terms_of(metric: Metric, settings: Settings) -> dict[str, str]:
    """What an instance is opened under; of DAU, also when its month is restated, which is public from then on."""
    terms = {"sketch_impl": settings.sketch_impl}
    if metric == "dau":
        terms["restatements_per_month"] = str(settings.restatements_per_month)
        terms["restatement_day"] = str(settings.restatement_day)
    return terms


def enter(planned: Plan, books: Books) -> None:
    """Put the instance and the charges on the books."""
    if planned.is_new:
        books.open_instance(planned.instance)
    for charge in planned.charges:
        books.charge(charge)


def draw(key: ReleaseKey, instance: Instance, statistic: int, books: Books, noise: Noise) -> float:
    """The noisy value, from noise that is drawn here and nowhere else."""
    match instance.mechanism:
        case SharedNoise() as shared:
            return _draw_shared(instance.name, shared, statistic, books, noise)
        case Stream() as stream:
            books.freeze(instance.name, key.day, statistic)
            (fresh,) = noise.gaussian(stream.sigma)
            output = mechanisms.stream_output(stream, books.frozen(instance.name, len(stream.filter)), fresh)
            return mechanisms.stream_number(stream, output, books.numbers(instance.name))
        case Gaussian(sigma):
            return mechanisms.independent_number(statistic, noise.gaussian(sigma)[0])
        case Laplace() as laplace:
            return mechanisms.independent_number(statistic, noise.laplace(laplace.scale)[0])


def fact(key: ReleaseKey, instance: Instance, noisy_value: float, books: Books, outside: Outside) -> Release:
    """The release as it is stored and shown, with its scheduled slot for a time: the real one could tell tales."""
    settings = outside.settings
    day = slot_of(settings, key.day)
    if key.revision:
        day = restatement_due(month_of(key.day), books.instances(), settings) or day
    slot = datetime.combine(day, time(), ZoneInfo(settings.timezone))
    stream_day = (key.day - instance.first_day).days + 1
    return Release(
        key=key, instance=instance.name, mechanism=instance.mechanism.name, noisy_value=noisy_value,
        half_width=mechanisms.half_width_95(instance.mechanism, stream_day), sketch_impl=settings.sketch_impl,
        published_at=slot.isoformat(), private=outside.noise.private, version=VERSION,
    )  # fmt: skip


def forget_spent_noise(name: str, books: Books, settings: Settings) -> None:
    """Destroy the shared noise with the last number that it can serve; days before START_DATE never have one."""
    instance = books.instance(name)
    if instance is None or not isinstance(instance.mechanism, SharedNoise):
        return
    month = instance.first_day
    days = len(days_between(max(month, settings.start_date), month_end(month)))
    if month in books.restated() or len(books.numbers(name)) == days * instance.mechanism.releases // month_days(month):
        books.destroy_shared_noise(name)


def _draw_shared(name: str, shared: SharedNoise, statistic: int, books: Books, noise: Noise) -> float:
    if len(books.numbers(name)) >= shared.releases:
        raise Refused(f"{name} has given all of its {shared.releases} numbers.", "Ask for one of those.")
    in_common = books.shared_noise(name)
    if in_common is None:
        (in_common,) = noise.gaussian(shared.sigma_month)
        books.keep_shared_noise(name, in_common)
    (fresh,) = noise.gaussian(shared.sigma_day)
    return mechanisms.shared_number(statistic, fresh, in_common)
