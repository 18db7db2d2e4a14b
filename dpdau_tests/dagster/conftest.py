"""What the tests of Dagster share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from dpdau_assets.core.ports.store import Store
from dpdau_tests.dagster.world import World, keep_instance, replace_instance
from dpdau_tests.support.connections import closed_at_the_end
from dpdau_tests.support.prepared import Prepared


@pytest.fixture(scope="session")
def one_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dg.DagsterInstance, Path]]:
    """In memory, and what it holds while it is new: to begin anew costs less than another one."""
    new = tmp_path_factory.mktemp("instance")
    with dg.DagsterInstance.ephemeral() as opened:
        keep_instance(opened, new)
        yield opened, new


@pytest.fixture
def instance(one_instance: tuple[dg.DagsterInstance, Path]) -> dg.DagsterInstance:
    """In memory, and without any run or event."""
    opened, new = one_instance
    replace_instance(opened, new)
    return opened


@pytest.fixture
def make_world(
    make_store: Callable[..., Store],
    instance: dg.DagsterInstance,
    one_instance: tuple[dg.DagsterInstance, Path],
    sketch_settings: dict[str, object],
    prepared: Prepared,
    tmp_path: Path,
) -> Callable[..., World]:
    """A store and what Dagster knows of it, as a copy of what a recipe makes of an empty World.

    The recipe runs once under the same settings and on the same day, however many tests name it.
    """

    def make(
        recipe: Callable[[World], object], today: date, sensor: str = "erasure_sensor", **settings: object
    ) -> World:
        def fill(folder: Path) -> None:
            replace_instance(*one_instance)  # nothing of what this test has done before
            with closed_at_the_end():
                world = World(make_store(str(folder / "store"), today=today, **settings), instance, sensor=sensor)
                recipe(world)
                keep_instance(instance, folder)
                (folder / "cursor").write_text(world.cursor or "")

        chosen = sorted({**sketch_settings, **settings}.items())
        told = f"{recipe.__module__}.{recipe.__qualname__} {today} {sensor} {chosen}"
        copied = prepared.copy(told, fill, tmp_path / "world")
        replace_instance(instance, copied)
        (copied / "store").rename(tmp_path / "store")
        return World(make_store(today=today, **settings), instance, (copied / "cursor").read_text() or None, sensor)

    return make
