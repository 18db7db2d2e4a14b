"""What the tests of whole logs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdau_tests.support import fast_folder


@pytest.fixture(name="fast_folder")
def a_fast_folder() -> Iterator[Path]:
    """For one test."""
    with fast_folder.fast_folder() as folder:
        yield folder
