"""What dpdau uses of Dagster that is not public, names and conventions: here, and nowhere else.

Each is to be looked at when another version of Dagster is taken; `dpdau_tests/test_layers.py` keeps others out.
"""

from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    UNKNOWN_DATA_VERSION,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.event_api import EventLogCursor
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorStatus, InstigatorType
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage as ConsolidatedSqliteEventLogStorage

Job = dg.JobDefinition | UnresolvedAssetJobDefinition
"""What `define_asset_job` returns has no public name."""

Target = AssetCheckEvaluationTargetMaterializationData
"""The materialisation that the answer to a check is about."""


def version_tags(version: str, code_version: str) -> dict[str, str]:
    """The tags of a materialisation under a data version of ours."""
    return {DATA_VERSION_TAG: version, CODE_VERSION_TAG: code_version}


def source_tags(source: dg.AssetKey, newest: str) -> dict[str, str]:
    """The tags that say what was read of a partitioned source: all up to its event of this number, "NULL" for none."""
    unknown = UNKNOWN_DATA_VERSION.value  # of a partitioned one Dagster never looks at it
    return {get_input_data_version_tag(source): unknown, get_input_event_pointer_tag(source): newest}


def last_data_version(asset: dg.AssetKey, partition: str, instance: dg.DagsterInstance) -> str | None:
    """The data version that Dagster was told last, None for a partition that it does not know."""
    event = instance.get_latest_data_version_record(asset, partition_key=partition)
    version = extract_data_version_from_entry(event.event_log_entry) if event else None
    return version.value if version else None


def last_check_failed(check: dg.AssetCheckKey, partitions: list[str], instance: dg.DagsterInstance) -> set[str]:
    """For which of these partitions the check was answered last with no."""
    known = instance.event_log_storage.get_asset_check_partition_info([check], partition_keys=partitions)
    return {info.partition_key or "" for info in known if info.latest_execution_status.value == "FAILED"}


def check_output(check: dg.AssetCheckKey) -> str:
    """The name of the output by which an asset's own step answers this check of it."""
    return f"{check.asset_key.to_python_identifier()}_{check.name}"


def cursor_after(record: dg.EventLogRecord) -> str:
    """Where the log is to be read on after this event."""
    return str(EventLogCursor.from_storage_id(record.storage_id))


def open_instance(home: str, settings: dict[str, Any]) -> dg.DagsterInstance:
    """The instance of a home, under these settings instead of what its dagster.yaml says."""
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(home, overrides=settings))


def switched_on(instance: dg.DagsterInstance) -> set[str]:
    """The names of the schedules that somebody has switched on."""
    running = {InstigatorStatus.RUNNING}
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE, instigator_statuses=running)
    return {state.name for state in states}


def serve() -> None:
    """`dagster dev`, with the options of this process."""
    from dagster._cli.dev import dev_command  # it loads the web server

    dev_command()
