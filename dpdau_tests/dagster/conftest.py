"""What the tests of Dagster share."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory, and gone at the end."""
    with dg.DagsterInstance.ephemeral() as found:
        yield found
