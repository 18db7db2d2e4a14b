"""What publishing a range of days takes: one step after the other, asked for before the first is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, TypeAlias

from dpdau_assets.core.budget.planning import planned_estimator, require_in_order, restatement_due
from dpdau_assets.core.budget.sketch_choice import not_set
from dpdau_assets.core.dates import days_between, first_window_end, month_of
from dpdau_assets.core.errors import ParameterNotSet
from dpdau_assets.core.facts import ReleaseKey
from dpdau_assets.core.ports.ledger import LedgerSnapshot, LedgerView
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.schedule import due_on, restatement_due_on
from dpdau_assets.core.settings import Metric, Settings
from dpdau_assets.core.state.activity import require_ended

StepKind: TypeAlias = Literal["build", "dau", "mau", "restatement", "reports"]
BUILD: StepKind = "build"
DAU: StepKind = "dau"
MAU: StepKind = "mau"
RESTATEMENT: StepKind = "restatement"
REPORTS: StepKind = "reports"


@dataclass(frozen=True)
class Step:
    """One thing to do, and its day; of a restatement the month, of a build all its days, in bulk."""

    kind: StepKind
    day: date | None = None
    days: tuple[date, ...] = ()

    @property
    def metric(self) -> Metric:
        """The metric whose numbers the step publishes."""
        return "mau" if self.kind == MAU else "dau"

    def key(self, settings: Settings) -> ReleaseKey:
        """The key of a step that publishes a number; of a restatement that of the month's first day."""
        assert self.day is not None, "what publishes has a day"
        return ReleaseKey(self.metric, settings.window_days(self.metric), self.day, int(self.kind == RESTATEMENT))

    @property
    def title(self) -> str:
        """For a progress bar."""
        return f"{self.kind} {self.day or (f'{self.days[0]} to {self.days[-1]}' if self.days else '')}"


def step_of(key: ReleaseKey) -> Step:
    """The step that publishes this number; of a restated one that of its month."""
    if key.revision:
        return Step(RESTATEMENT, month_of(key.day))
    return Step(DAU if key.metric == "dau" else MAU, key.day)


def building(days: Iterable[date]) -> list[Step]:
    """The step that builds these days, if there are any."""
    in_order = tuple(sorted(days))
    return [Step(BUILD, days=in_order)] if in_order else []


def plan_run(first: date, last: date, store: Store) -> list[Step]:
    """The steps that publish these days.

    Raises Refused when they are not over, or would leave a gap in MAU, and ParameterNotSet, naming all that is to be
    set, when nothing says how to count them.
    """
    settings = store.settings
    require_ended(last, store.clock)
    with store.accountant.snapshot() as ledger:
        _require_countable(first, last, settings, ledger)
        _require_no_gap(first, last, settings, ledger)
        due = restatements_due(days_between(first, last), settings, ledger)
        return list(steps(first, last, settings, ledger.processed(), due))


def _require_no_gap(first: date, last: date, settings: Settings, ledger: LedgerSnapshot) -> None:
    """Raise Refused where the first new MAU of these days does not follow the last one."""
    keys = [ReleaseKey("mau", settings.mau_window_days, day) for day in days_between(first, last)]
    new = [key for key in keys if key.day >= first_mau_day(settings) and ledger.release(key) is None]
    if new and ledger.last_day("mau", settings.mau_window_days) is not None:
        require_in_order(new[0], ledger, settings)


def _require_countable(first: date, last: date, settings: Settings, ledger: LedgerSnapshot) -> None:
    """Raise for the first number of each metric that is to be made and cannot be counted."""
    unknown = []
    begins: dict[Metric, date] = {"dau": first, "mau": max(first, first_mau_day(settings))}
    for metric, day in begins.items():
        key = ReleaseKey(metric, settings.window_days(metric), day)
        try:
            if day <= last and ledger.release(key) is None:
                planned_estimator(key, ledger, settings)
        except ParameterNotSet:
            unknown.append(metric)
    if unknown:
        raise not_set(unknown, settings)


def restatements_due(days: list[date], settings: Settings, accountant: LedgerView) -> dict[date, date]:
    """Month to public day, of every month that is not restated yet and has a number, or will have one of these days."""
    published = {month_of(release.key.day) for release in accountant.releases("dau")}
    runs = accountant.mechanism_runs()
    due = {month: restatement_due(month, runs, settings) for month in published - accountant.restated()}
    if settings.restatements_per_month:
        begun = {month_of(day) for day in days} - published
        due |= {month: restatement_due_on(settings, month) for month in begun}
    return {month: day for month, day in sorted(due.items()) if day is not None}


def steps(
    first: date,
    last: date,
    settings: Settings,
    processed: frozenset[date] = frozenset(),
    restatements: Mapping[date, date] | None = None,
) -> Iterator[Step]:
    """First the state of all days that the windows read, where it was never built; then number by number.

    A month is restated as soon as publication has come to its public day. What was built once is left out even if a
    removal touched it since: a release brings itself up to date, and which days are run again must not tell whose they
    were.
    """
    waiting = dict(restatements or {})
    reach = max(settings.start_date, first - timedelta(days=settings.mau_window_days - 1))
    yield from building(day for day in days_between(reach, last) if day not in processed)
    for day in days_between(first, last):
        yield Step(DAU, day)
        if day >= first_mau_day(settings):
            yield Step(MAU, day)
        for month in [month for month, due in waiting.items() if due <= due_on(settings, day)]:
            yield Step(RESTATEMENT, month)
            del waiting[month]
    yield Step(REPORTS)


def first_mau_day(settings: Settings) -> date:
    """The first day on which a whole window lies inside the data."""
    return first_window_end(settings.start_date, settings.mau_window_days)
