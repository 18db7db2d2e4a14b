"""The mart as Dagster writes it: by the resource `duckdb`, whose connections are closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import pytest
from dagster_duckdb import DuckDBResource

from dpdau_assets.assets.mart import connected, refresh_mart
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.release import publish
from dpdau_tests.conftest import prepare
from dpdau_tests.dagster.world import World
from resources.published.mart_duckdb import FILES, MartFiles

FIRST, SECOND = date(2025, 1, 1), date(2025, 1, 2)
IN_MEMORY = DuckDBResource(database=":memory:")


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    """One number is published, and another can be."""
    store = make_store()
    prepare(store, [FIRST, SECOND])
    publish("dau", FIRST, store)
    return store


def days_shown(folder: Path) -> list[date]:
    with duckdb.connect(folder / "active_users.duckdb", read_only=True) as mart:
        return [day for (day,) in mart.sql("SELECT day FROM active_users ORDER BY day").fetchall()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_asset_has_its_connection_from_the_resource_duckdb_which_opens_no_file(
    make_world: Callable[..., World],
) -> None:
    world = make_world(lambda empty: (prepare(empty.store, [FIRST]), publish("dau", FIRST, empty.store)), SECOND)
    assert "duckdb" in world.definitions.get_assets_def("active_users").required_resource_keys
    resource = (world.definitions.resources or {})["duckdb"]
    assert isinstance(resource, DuckDBResource) and resource.database == ":memory:"
    assert world.execute("refresh_mart", ops=["active_users"]).success
    assert days_shown(world.store.settings.data_dir / "mart") == [FIRST]


def test_the_mart_is_replaced_while_a_reader_has_it_open_and_nothing_is_left_beside_it(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "mart"
    refresh_mart(store, MartFiles(folder), IN_MEMORY)
    publish("dau", SECOND, store)
    with duckdb.connect(folder / "active_users.duckdb", read_only=True) as reader:
        refresh_mart(store, MartFiles(folder), IN_MEMORY)
        assert reader.sql("SELECT count(*) FROM active_users").fetchall() == [(1,)]
    assert days_shown(folder) == [FIRST, SECOND]
    assert set(bytes_of(folder)) == set(FILES)


def test_a_connection_is_closed_after_an_exception_which_the_resource_itself_would_leave_open() -> None:
    with pytest.raises(OSError, match="disk is full"), connected(IN_MEMORY) as connection:
        raise OSError("the disk is full")
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        connection.execute("SELECT 1")


def test_a_mart_that_cannot_be_written_leaves_all_that_readers_have_as_it_was(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "mart"
    mart = MartFiles(folder)
    refresh_mart(store, mart, IN_MEMORY)
    before = bytes_of(folder)
    publish("dau", SECOND, store)
    in_the_way = folder / ".latest.csv.tmp"  # of the last file that the connection writes
    in_the_way.mkdir()
    with pytest.raises(OSError):
        refresh_mart(store, mart, IN_MEMORY)
    in_the_way.rmdir()
    assert {name: bytes_of(folder)[name] for name in FILES} == before
    # What was begun is not locked, neither for this process nor for another attempt.
    with duckdb.connect(folder / ".active_users.duckdb.tmp") as unfinished:
        assert unfinished.sql("SELECT count(*) FROM active_users").fetchall() == [(2,)]
    refresh_mart(store, mart, IN_MEMORY)
    assert set(bytes_of(folder)) == set(FILES)
    assert days_shown(folder) == [FIRST, SECOND]


def test_a_resource_that_cannot_be_opened_leaves_the_mart_as_it_was(store: Store, tmp_path: Path) -> None:
    mart = MartFiles(tmp_path / "mart")
    refresh_mart(store, mart, IN_MEMORY)
    before = bytes_of(tmp_path / "mart")
    broken = DuckDBResource(database=":memory:", connection_config={"access_mode": "READ_ONLY"})
    with pytest.raises(duckdb.Error, match="read-only"):
        refresh_mart(store, mart, broken)
    assert bytes_of(tmp_path / "mart") == before
