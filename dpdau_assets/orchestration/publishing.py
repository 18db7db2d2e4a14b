"""The one way in which Dagster publishes: the assets' own steps, backfills, and the ops that publish many numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextvars import ContextVar
from datetime import date

import dagster as dg

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Release
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import READ_AT_ONCE, publish_in_order
from dpdau_assets.core.publication.runs import RESTATEMENT, Step
from dpdau_assets.orchestration.private import check_output
from dpdau_assets.orchestration.project import Project
from dpdau_assets.orchestration.recorder import (
    DAU_RELEASE,
    MAU_RELEASE,
    SKETCH,
    Event,
    Record,
    Recorder,
    Result,
    numbers,
    refusal,
    restatement,
)

StepOutput = Result | Event | dg.Output[None]
"""What an asset's own step yields."""

READ = (SKETCH, DAU_RELEASE, MAU_RELEASE)
"""What a number can follow."""

DONE: ContextVar[Callable[[Step], None]] = ContextVar("DONE", default=lambda _: None)
"""Told of each step that is out, where somebody in this process waits for it."""


def publish_steps(
    steps: Sequence[Step], store: Store, declared: Callable[[], Set[date]] | None = None
) -> tuple[list[Record], Exception | None]:
    """Publish these in order, unless they are: what to tell of them, and what the first that is not has failed with.

    What to tell of a refused one comes last. With `declared` the list may end earlier, as `publish_in_order` says.
    """
    out: list[tuple[Step, list[Release]]] = []
    try:
        for step, releases in publish_in_order(steps, store, declared):
            out.append((step, releases))
            DONE.get()(step)
    except Refused as error:
        return [*records_of(out, store), refusal(steps[len(out)].key(store.settings), error, store)], error
    except Exception as error:  # whatever it is, it is raised when those that are out are told
        return records_of(out, store), error
    return records_of(out, store), None


def records_of(out: Sequence[tuple[Step, list[Release]]], store: Store) -> list[Record]:
    """What there is to tell of these steps, which are out."""
    first = [release for step, releases in out if step.kind != RESTATEMENT for release in releases]
    again = [(step.key(store.settings).day, releases) for step, releases in out if step.kind == RESTATEMENT]
    return [*numbers(first, store), *(restatement(month, releases, store) for month, releases in again)]


def results(
    steps: Sequence[Step], context: dg.AssetExecutionContext, project: Project, store: Store
) -> Iterator[StepOutput]:
    """For the asset's own step to yield: one day's number, or those of a backfill, which are told one by one.

    Of a range of partitions Dagster has a step say the same of all. Raises Refused when all that was published is told.
    """
    if len(steps) > 1:
        yield from events(steps, Recorder(project, context.instance), store)
        for check in context.selected_asset_check_keys:  # answered by these events; Dagster waits for an output too
            yield dg.Output(None, check_output(check))
        return
    records, error = publish_steps(steps, store)
    for record in records:
        yield from record.results()
    if error:
        raise error


def events(
    steps: Sequence[Step], recorder: Recorder, store: Store, declared: Callable[[], Set[date]] | None = None
) -> Iterator[Event]:
    """For an op to yield: as many as are read at once are published, and told, and then those after them.

    Raises Refused as `results` does, and ends where `declared` ends the list.
    """
    for start in range(0, len(steps), READ_AT_ONCE):
        piece, newest = steps[start : start + READ_AT_ONCE], recorder.newest(READ)
        records, error = publish_steps(piece, store, declared)
        yield from recorder.reported(records, newest)
        if error:
            raise error
        if len(records) < len(piece):
            return
