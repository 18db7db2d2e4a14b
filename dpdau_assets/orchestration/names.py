"""What Dagster's jobs and schedules are called, and which job does each of core's steps. Strings, and no Dagster."""

from __future__ import annotations

from collections.abc import Mapping

from dpdau_assets.core.publication.runs import BUILD, DAU, MAU, REPORTS, RESTATEMENT, StepKind

BUILD_STATE, REBUILD_DAYS = "build_state", "rebuild_days"  # one day, and many at once
PUBLISH_DAU, PUBLISH_MAU, RESTATE_DAU = "publish_dau", "publish_mau", "restate_dau"
PUBLISH_DUE, PUBLISH_NUMBERS = "publish_due", "publish_numbers"  # what the calendar says, and what somebody says
REFRESH_MART, CHECK_STORE = "refresh_mart", "check_store"

PUBLISH_DUE_HOURLY, CHECK_STORE_NIGHTLY = "publish_due_hourly", "check_store_nightly"

JOB_OF: Mapping[StepKind, str] = {
    BUILD: REBUILD_DAYS,
    DAU: PUBLISH_NUMBERS,
    MAU: PUBLISH_NUMBERS,
    RESTATEMENT: PUBLISH_NUMBERS,
    REPORTS: REFRESH_MART,
}
"""The job that does a step, and those of its kind beside it."""
