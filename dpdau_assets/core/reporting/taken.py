"""What whoever handed something in is answered: what was taken of events, and of erasure requests; as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpdau_assets.core.erasure.requests import Requested
from dpdau_assets.core.publication.arrivals import SortedOut
from dpdau_assets.core.publication.ingest import IngestReport

Json = dict[str, Any]

ALIKE = (
    "the user_id differs from another line's by case, surrounding space or Unicode form alone: they are different "
    "people here, and each was taken."
)


def files_taken(report: IngestReport) -> Json:
    """The answer to event files."""
    return {
        "ingested": report.ingested,
        "rejected": report.rejected,
        "rejected_by_reason": report.rejections.by_reason(),
        "not_active": report.idle,
        "quarantine": str(report.quarantine) if report.quarantine else None,
        "days": [day.isoformat() for day in report.days],
        "batch": report.batch,
        "passed_over": days_passed_over(report.removals),
        "removals_waiting": report.removals_waiting,
        "other_days": {day.isoformat(): round(share, 4) for day, share in report.elsewhere.items()},
    }


def rows_taken(rows: SortedOut, *, explain: bool) -> Json:
    """The answer to events over HTTP; with each bad row by its place, counted from 0, where that is asked for."""
    answer: Json = {
        "ingested": rows.accepted,
        "rejected": len(rows.rejected),
        "rejected_by_reason": dict(rows.by_reason),
    }
    if explain:
        answer["errors"] = [{"index": place, "reason": reason} for place, reason in rows.rejected]
    return answer


def requests_taken(requested: Requested, alike: Sequence[int] = ()) -> Json:
    """The answer to erasure requests, one receipt each, in order; `alike` are the lines to warn of."""
    return {
        "received": len(requested.receipts),
        "receipts": list(requested.receipts),
        "references": list(requested.references),
        "parked": requested.parked,
        "batches": list(requested.batches),
        "passed_over": days_passed_over(requested),
        "warnings": [{"line": line, "warning": ALIKE} for line in alike],
    }


def days_passed_over(requested: Requested) -> list[Json]:
    """By receipt, in order: the days that were asked for and can hold nothing, where there are any."""
    return [
        {"receipt": name, "days": [day.isoformat() for day in days]}
        for name, days in zip(requested.receipts, requested.passed_over, strict=True)
        if days
    ]
