"""The main path: from a day's sketches to a published number, read downwards.

`publish` returns the one number of a key. The first call makes it: the days it reads are sealed, the statistic is
read, and one ledger transaction checks, charges, draws and stores. Every later call reads what was stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dpdau_assets.core import mechanisms
from dpdau_assets.core.accounting import Budget, Charge, admits, charges_for_release
from dpdau_assets.core.activity import take_in
from dpdau_assets.core.calendar import mechanism_for, slot_of
from dpdau_assets.core.day_sketch import read_fresh, refresh
from dpdau_assets.core.erasure import without_held_out
from dpdau_assets.core.errors import Refused
from dpdau_assets.core.mechanisms import Gaussian, Laplace, SharedNoise, Stream
from dpdau_assets.core.ports import Books, Clock, Instance, Noise, Outside, Release, ReleaseKey
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.sketches import unite
from dpdau_assets.core.version import VERSION
from dpdau_assets.core.windows import days_between, epoch_of, first_window_end, month_days, month_end, month_of, window


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
        statistic, watermark = read_statistic(key, outside)
        release = commit(key, statistic, watermark, outside)
    return release


def require_publishable(key: ReleaseKey, outside: Outside) -> None:
    """Ask everything that can be asked before a day is sealed for it."""
    settings = outside.settings
    earliest = first_window_end(settings.start_date, key.window_days)
    if key.day < earliest:
        raise Refused(f"{key.metric} of {key.day} would read days before START_DATE.", f"Ask from {earliest} on.")
    require_ended(key.day, outside.clock)
    unprocessed = sorted(set(window(key.day, key.window_days)) - outside.ledger.processed())
    if unprocessed:
        missing = f"There is no state for {unprocessed[0]}" + (" and later days" if len(unprocessed) > 1 else "")
        raise Refused(f"{missing}, which {key.metric} of {key.day} reads.", "Materialise `activity` for it.")
    with outside.ledger.transaction() as books:
        if books.release(key) is None:  # another process may have made it since
            plan(key, books, settings)


def require_ended(day: date, clock: Clock) -> None:
    """Raises Refused for today and later."""
    if day >= clock.today():
        raise Refused(f"{day} has not ended yet.", "A day is published once it is complete.", day=day.isoformat())


def read_statistic(key: ReleaseKey, outside: Outside) -> tuple[int, int]:
    """The exact integer that noise goes on, and the watermark of the removals it is without.

    From here on the days it read are sealed: the stream's noise is calibrated for bits that are final.
    """
    days = window(key.day, key.window_days)
    epoch = epoch_of(key.day, outside.settings.hash_salt_rotation_days)
    with outside.activity.lock():
        take_in(outside)  # all that was acknowledged by now, and whatever a killed fold left half done
        outside.ledger.seal(days)
        watermark = outside.removals.applied()
        refresh(days, outside)
        sketches = [(day, read_fresh(day, epoch, outside)) for day in days]
    if key.metric == "mau":
        sketches = without_held_out(sketches, key.day, outside.removals.tombstones(epoch))
    return unite([sketch for _, sketch in sketches]).statistic(), watermark


def commit(key: ReleaseKey, statistic: int, watermark: int, outside: Outside) -> Release | None:
    """Check, charge, draw and store in one transaction; None when a removal came since the statistic was read."""
    with outside.ledger.transaction() as books:
        stored = books.release(key)
        if stored is not None:
            return stored
        if books.removals_recorded() != watermark:
            return None
        planned = plan(key, books, outside.settings)
        enter(planned, books)
        noisy_value = draw(key, planned.instance, statistic, books, outside.noise)
        release = fact(key, planned.instance, noisy_value, outside)
        books.store(release)
        forget_spent_noise(planned.instance, books, outside.settings)
    return release


def plan(key: ReleaseKey, books: Books, settings: Settings) -> Plan:
    """What this release would open and charge. Raises Refused when its day, its terms or a cap forbids it."""
    require_in_order(key, books, settings)
    wanted = wanted_instance(key, books, settings)
    living = books.instance(wanted.name)
    if living is not None:
        require_same_terms(living, wanted)
    instance = living or wanted
    budget = Budget(settings.cap(key.metric), settings.delta)
    charges = []
    for charge in charges_for_release(key.metric, key.day, key.window_days, instance.mechanism, instance.name):
        made = books.charges(key.metric, charge.month)
        if charge not in made:
            admits(made, charge, budget)
            charges.append(charge)
    return Plan(instance, living is None, tuple(charges))


def require_in_order(key: ReleaseKey, books: Books, settings: Settings) -> None:
    """A stream's days follow one another: its first is wherever it begins, then none is skipped or gone back to."""
    last = books.last_day(key.metric, key.window_days)
    if settings.mechanism(key.metric) != Stream.name or last is None or key.day == last + timedelta(days=1):
        return
    raise Refused(
        f"{key.metric} was last published for {last}; {key.day} does not follow it.",
        f"Publish {last + timedelta(days=1)} next; days before the first published one stay without a number.",
        day=key.day.isoformat(), next_day=(last + timedelta(days=1)).isoformat(),
    )  # fmt: skip


def wanted_instance(key: ReleaseKey, books: Books, settings: Settings) -> Instance:
    """The instance that this release belongs to under these settings, living already or not."""
    mechanism = mechanism_for(settings, key.metric, month_of(key.day))
    match mechanism:
        case SharedNoise():
            first_day = month_of(key.day)
            label = f"{first_day:%Y-%m}"
        case Stream():
            last = books.last_instance(key.metric, key.window_days)
            first_day = last.first_day if last and isinstance(last.mechanism, Stream) else key.day
            label = f"from-{first_day}"
        case _:
            first_day = key.day
            label = f"{key.day}-r{key.revision}"
    name = f"{key.metric}-{key.window_days}-{mechanism.name}-{label}"
    return Instance(name, key.metric, key.window_days, first_day, mechanism, {"sketch_impl": settings.sketch_impl})


def require_same_terms(living: Instance, wanted: Instance) -> None:
    """A stream is one mechanism for ever: what it was calibrated for must not change under it.

    A month of shared noise keeps what it was opened with, whatever the settings say by now.
    """
    if not isinstance(living.mechanism, Stream):
        return
    old = {**living.mechanism.to_json(), **living.terms}
    new = {**wanted.mechanism.to_json(), **wanted.terms}
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        raise Refused(
            f"The stream {living.name} was begun with other settings: {', '.join(changed)} differ.",
            "Set them back; a living stream cannot be changed.", changed=changed,
        )  # fmt: skip


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
            output = mechanisms.stream_output(stream, books.frozen(instance.name), fresh)
            return mechanisms.stream_number(stream, output, books.numbers(instance.name))
        case Gaussian(sigma):
            return mechanisms.independent_number(statistic, noise.gaussian(sigma)[0])
        case Laplace() as laplace:
            return mechanisms.independent_number(statistic, noise.laplace(laplace.scale)[0])


def fact(key: ReleaseKey, instance: Instance, noisy_value: float, outside: Outside) -> Release:
    """The release as it is stored and shown, with its scheduled slot for a time: the real one could tell tales."""
    settings = outside.settings
    slot = datetime.combine(slot_of(settings, key.day), time(), ZoneInfo(settings.timezone))
    stream_day = (key.day - instance.first_day).days + 1
    return Release(
        key=key, instance=instance.name, mechanism=instance.mechanism.name, noisy_value=noisy_value,
        half_width=mechanisms.half_width_95(instance.mechanism, stream_day), sketch_impl=settings.sketch_impl,
        published_at=slot.isoformat(), private=outside.noise.private, version=VERSION,
    )  # fmt: skip


def forget_spent_noise(instance: Instance, books: Books, settings: Settings) -> None:
    """Destroy the shared noise with the last number that it can serve; days before START_DATE never have one."""
    shared, month = instance.mechanism, instance.first_day
    if isinstance(shared, SharedNoise):
        each_day = shared.releases // month_days(month)
        days = len(days_between(max(month, settings.start_date), month_end(month)))
        if len(books.numbers(instance.name)) == each_day * days:
            books.destroy_shared_noise(instance.name)


def _draw_shared(name: str, shared: SharedNoise, statistic: int, books: Books, noise: Noise) -> float:
    if len(books.numbers(name)) >= shared.releases:
        raise Refused(f"{name} has given all of its {shared.releases} numbers.", "Ask for one of those.")
    in_common = books.shared_noise(name)
    if in_common is None:
        (in_common,) = noise.gaussian(shared.sigma_month)
        books.keep_shared_noise(name, in_common)
    (fresh,) = noise.gaussian(shared.sigma_day)
    return mechanisms.shared_number(statistic, fresh, in_common)
