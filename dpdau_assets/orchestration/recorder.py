"""What a published number, a built day, a restatement is to Dagster: said here, and nowhere else.

A `Record` is told in one of two ways: as the result of the asset's own step, or as the events of an op that has made
many partitions. Both give Dagster the same data version, metadata and answers to checks.

The checks of one partition (`ANSWERED_IN_RUNS`) are answered by the run that made it, or tried to: never by a run of
their own, which would need the partition, and never by an event without a run, the second of which breaks an index of
Dagster's. None of them blocks, and those of numbers read no tombstone: how long they take must not tell of a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from dpdau_assets.core.budget.numbers import interval
from dpdau_assets.core.budget.within_budget import (
    BudgetStandings,
    MonthBudget,
    Spent,
    WithinBudget,
    spent_by_then,
    within_budget,
)
from dpdau_assets.core.dates import month_of
from dpdau_assets.core.errors import BudgetRefused, Refused
from dpdau_assets.core.facts import Release, ReleaseKey
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.privacy.mechanism_run import MechanismRun
from dpdau_assets.core.state.rebuilding import Built
from dpdau_assets.orchestration.metadata import CODE_VERSION, reveal
from dpdau_assets.orchestration.private import Target, last_check_failed, source_tags, version_tags
from dpdau_assets.orchestration.project import Project

ERASURES, ACTIVITY, SKETCH = "erasures", "activity", "day_sketch"
DAU_RELEASE, MAU_RELEASE, RESTATED = "dau_release", "mau_release", "dau_restatement"

WITHIN_BUDGET, NOISE_IS_PRIVATE = "within_budget", "noise_is_private"
ERASURES_APPLIED, SKETCH_IS_FRESH = "erasures_applied", "sketch_is_fresh"
_GUARDS = {
    WITHIN_BUDGET: "The number is within the cap of every month that it reads; of a refused one, why.",
    NOISE_IS_PRIVATE: "The number was drawn from noise that cannot be predicted.",
    ERASURES_APPLIED: "Nobody is left in the day's state whose removal was applied.",
    SKETCH_IS_FRESH: "The day's sketches are of the state beside them.",
}
ANSWERED_IN_RUNS: Mapping[str, tuple[str, ...]] = {
    ACTIVITY: (ERASURES_APPLIED,),
    SKETCH: (SKETCH_IS_FRESH,),
    **dict.fromkeys((DAU_RELEASE, MAU_RELEASE, RESTATED), (WITHIN_BUDGET, NOISE_IS_PRIVATE)),
}
"""By asset, the checks that hold for one of its partitions."""

_AT_ONCE = 500
"""Partitions that Dagster's log is asked about in one query."""

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
Result = dg.MaterializeResult | dg.AssetCheckResult


def check_specs(project: Project, asset: str, partitions: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    """The checks that the asset's own step answers, each for the partition that it made."""
    return [
        dg.AssetCheckSpec(name, asset=project.asset(asset), partitions_def=partitions, description=_GUARDS[name])
        for name in ANSWERED_IN_RUNS[asset]
    ]


def check_keys(project: Project, assets: Iterable[str]) -> list[dg.AssetCheckKey]:
    """The checks of these assets that their own runs answer."""
    return [
        dg.AssetCheckKey(project.asset(asset), name) for asset in assets for name in ANSWERED_IN_RUNS.get(asset, ())
    ]


@dataclass(frozen=True)
class Answer:
    """What a check of one partition found."""

    check: str
    passed: bool
    sentence: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What there is to tell of an asset, or of one partition of it.

    Attributes:
        partition: the day; of a restatement the month's first.
        version: the data version; None lets Dagster choose one.
        sources: what it was made from.
        is_made: whether it is there; else the answers tell why not.
    """

    asset: str
    partition: date | None = None
    version: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    sources: tuple[str, ...] = ()
    is_made: bool = True

    def results(self) -> Iterator[Result]:
        """For the asset's own step to yield."""
        answers = [
            dg.AssetCheckResult(
                passed=answer.passed, check_name=answer.check, description=answer.sentence, metadata=answer.metadata
            )
            for answer in self.answers
        ]
        if self.is_made:
            version = dg.DataVersion(self.version) if self.version else None
            yield dg.MaterializeResult(data_version=version, metadata=self.metadata, check_results=answers)
        else:
            yield from answers

    def materialization(self, project: Project, newest: Mapping[str, str]) -> dg.AssetMaterialization:
        """For an op to yield. `newest` is, of each source, Dagster's last event by the time it was read: a partition of
        the source that gets another version later makes this one stale.
        """
        tags = version_tags(self.version, CODE_VERSION) if self.version else {}
        for source in self.sources:
            tags |= source_tags(project.asset(source), newest[source])
        return dg.AssetMaterialization(
            project.asset(self.asset), partition=self._partition, tags=tags, metadata=self.metadata
        )

    def evaluations(self, project: Project, target: Target | None) -> Iterator[dg.AssetCheckEvaluation]:
        """For an op to yield. `target` is the materialisation that the answers are about: without it they look old."""
        for answer in self.answers:
            yield dg.AssetCheckEvaluation(
                project.asset(self.asset),
                answer.check,
                passed=answer.passed,
                description=answer.sentence,
                metadata=answer.metadata,
                target_materialization_data=target,
                partition=self._partition,
                blocking=False,
            )

    @property
    def _partition(self) -> str | None:
        return self.partition.isoformat() if self.partition else None


# --- What an op tells --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorder:
    """Tells one instance of Dagster what an op has made."""

    project: Project
    instance: dg.DagsterInstance

    def reported(self, records: Iterable[Record], newest: Mapping[str, str] | None = None) -> Iterator[Event]:
        """The events of these records, asset by asset: first what is there, then what the checks say of it.

        `newest` is, of each source, Dagster's last event by the time it was read. Of a source that is told of here
        too, it is the last one by now: a stream's number follows the one that was told before it.
        """
        by_asset: dict[str, list[Record]] = {}
        for record in records:
            by_asset.setdefault(record.asset, []).append(record)
        for of_asset in by_asset.values():
            for record in of_asset:
                if record.is_made:
                    told = {source: self.newest([source])[source] for source in record.sources if source in by_asset}
                    yield record.materialization(self.project, {**(newest or {}), **told})
            targets = self._targets([record for record in of_asset if record.answers])
            for record in of_asset:
                yield from record.evaluations(self.project, targets.get(str(record.partition)))

    def newest(self, assets: Iterable[str]) -> dict[str, str]:
        """For each asset the pointer to its last event, as Dagster writes it."""
        records = {
            asset: self.instance.fetch_materializations(self.project.asset(asset), limit=1).records for asset in assets
        }
        return {asset: str(events[0].storage_id) if events else "NULL" for asset, events in records.items()}

    def last(self, asset: str) -> Target | None:
        """The asset's last materialisation, of whatever partition."""
        records = self.instance.fetch_materializations(self.project.asset(asset), limit=1).records
        return next(map(_target, records), None)

    def materialized(self, asset: str) -> set[str]:
        """The partitions of the asset that Dagster knows to be there."""
        return self.instance.get_materialized_partitions(self.project.asset(asset))

    def refused_before(self, asset: str, partitions: Sequence[date]) -> set[date]:
        """Which of these partitions have a number that Dagster was told is refused, and nothing else since."""
        key = dg.AssetCheckKey(self.project.asset(asset), WITHIN_BUDGET)
        names = [day.isoformat() for day in partitions]
        failed = last_check_failed(key, names, self.instance)
        return {day for day in partitions if day.isoformat() in failed}

    def _targets(self, records: Sequence[Record]) -> dict[str | None, Target]:
        """The last materialisation of each partition, which may have been told just now."""
        targets: dict[str | None, Target] = {}
        for start in range(0, len(records), _AT_ONCE):
            some = records[start : start + _AT_ONCE]
            wanted = dg.AssetRecordsFilter(
                asset_key=self.project.asset(some[0].asset), asset_partitions=[str(record.partition) for record in some]
            )
            events = self.instance.fetch_materializations(wanted, limit=len(some)).records
            for event in reversed(events):  # the newest comes last
                targets[event.partition_key] = _target(event)
        return targets


def _target(event: dg.EventLogRecord) -> Target:
    return Target(storage_id=event.storage_id, run_id=event.run_id, timestamp=event.timestamp)


# --- What there is to tell ---------------------------------------------------------------------------------------


def mark_of(day: date, mark: str) -> Record:
    """The day's last mark of erasures that touch it."""
    return Record(ERASURES, day, mark)


def state_of(day: date, version: str, is_clean: bool) -> Record:
    """A day's state."""
    return Record(ACTIVITY, day, version, answers=(Answer(ERASURES_APPLIED, is_clean),), sources=(ERASURES,))


def sketch_of(day: date, version: str, is_fresh: bool) -> Record:
    """A day's sketches."""
    return Record(SKETCH, day, version, answers=(Answer(SKETCH_IS_FRESH, is_fresh),), sources=(ACTIVITY,))


def built(days: Iterable[Built]) -> tuple[list[Record], list[Record]]:
    """State and sketches of days that were built together."""
    days = list(days)
    states = [state_of(built.day, built.state_version, built.is_clean) for built in days]
    return states, [sketch_of(built.day, built.sketch_version, built.sketch_is_fresh) for built in days]


def numbers(releases: Sequence[Release], store: Store) -> list[Record]:
    """Published numbers, whether they were made just now or long ago, by one look at the ledger."""
    with store.accountant.snapshot() as ledger:
        runs = {run.name: run for run in ledger.mechanism_runs()}
        spent = spent_by_then({release.key for release in releases}, ledger, store.settings)
        standings = BudgetStandings(ledger, store.settings)
        return [
            _number(release, runs[release.run], spent[release.key], standings.of(release.key)) for release in releases
        ]


def _number(release: Release, run: MechanismRun, spent: Spent, standing: WithinBudget) -> Record:
    number = interval(release, run)
    shown = {
        "estimate": number.estimate,
        "noisy_value": number.noisy_value,
        "lower_95": number.lower_95,
        "upper_95": number.upper_95,
        "epsilon_used": spent.epsilon,
        "budget_remaining": spent.remaining,
        "mechanism": release.mechanism,
    }
    asset = asset_of(release.key)
    return Record(
        asset,
        release.key.day,
        f"revision-{release.key.revision}",
        reveal(shown),
        (_budget_answer(standing), Answer(NOISE_IS_PRIVATE, release.private)),
        (SKETCH,) if asset == DAU_RELEASE else (SKETCH, MAU_RELEASE),
    )


def restatement(month: date, releases: Sequence[Release], store: Store) -> Record:
    """A month of DAU_RELEASE that was published again."""
    standing = within_budget(ReleaseKey("dau", 1, month, 1), store.accountant, store.settings)
    return Record(
        RESTATED,
        month,
        "revision-1",
        reveal({"days_published": len(releases)}),
        (_budget_answer(standing), Answer(NOISE_IS_PRIVATE, all(release.private for release in releases))),
        (DAU_RELEASE, SKETCH),
    )


def refusal(key: ReleaseKey, error: Refused, store: Store) -> Record:
    """A number that is not there, or a month that is not restated, and why: its check fails with the reason."""
    standing = within_budget(key, store.accountant, store.settings, error)
    answers = (_budget_answer(standing), Answer(NOISE_IS_PRIVATE, store.noise.private))
    return Record(asset_of(key), partition_of(key), answers=answers, is_made=False)


def asset_of(key: ReleaseKey) -> str:
    """The asset whose partition this number is, or is one of."""
    if key.revision:
        return RESTATED
    return DAU_RELEASE if key.metric == "dau" else MAU_RELEASE


def partition_of(key: ReleaseKey) -> date:
    """The partition of a number: its day, or of a restated one its month."""
    return month_of(key.day) if key.revision else key.day


def _budget_answer(standing: WithinBudget) -> Answer:
    return Answer(WITHIN_BUDGET, standing.passed, standing.sentence, reveal(_budget_metadata(standing)))


def _budget_metadata(standing: WithinBudget) -> dict[str, Any]:
    """The tightest month in numbers, which Dagster plots, and all of them in words."""
    tightest, error = standing.tightest, standing.refusal
    return {
        "month": f"{tightest.month:%Y-%m}",
        "epsilon_spent": round(tightest.spent, 4),
        "epsilon_charged": round(tightest.charged, 4),
        "epsilon_cap": round(tightest.cap, 4),
        "epsilon_left": round(tightest.left, 4),
        "months_read": _months_in_words(standing.months),
        **({"epsilon_asked": round(float(str(error.fields["asked"])), 4)} if isinstance(error, BudgetRefused) else {}),
        **({"reason": error.reason, "remedy": error.remedy} if error else {}),
        **({"next_day": standing.next_day.isoformat()} if standing.next_day else {}),
    }


def _months_in_words(months: Sequence[MonthBudget]) -> str:
    return "; ".join(
        f"{month.month:%Y-%m}: {month.spent:.3f} spent, {month.charged:.3f} of {month.cap:.3f} charged"
        for month in months
    )
