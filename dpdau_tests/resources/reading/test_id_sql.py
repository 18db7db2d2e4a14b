"""Ids are spelled inside DuckDB as they are in Python."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdau_assets.core.user_ids import NORMALIZATIONS, normalize
from dpdau_tests.support.lengths import at_length
from resources.reading.id_sql import normalized, teach_normalizing

HOWS = st.lists(st.sampled_from(NORMALIZATIONS), unique=True).map(tuple)
IDS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \t\x1c\xa0aBİßς\u0301\u0345\x00'\\")


@settings(max_examples=at_length(ci=20, soak=1_000), deadline=None)
@given(st.lists(st.none() | IDS, min_size=1, max_size=200), HOWS)
def test_ids_are_spelled_in_sql_as_they_are_in_python(ids: list[str | None], how: tuple) -> None:
    with duckdb.connect(config={"preserve_insertion_order": "true"}) as connection:
        teach_normalizing(connection, how)
        connection.register("given", pa.table({"user_id": pa.array(ids, pa.string()), "place": range(len(ids))}))
        query = f"SELECT {normalized('user_id', how)} FROM given ORDER BY place"
        found = [spelled for (spelled,) in connection.execute(query).fetchall()]
    assert found == [None if user_id is None else normalize(user_id, how) for user_id in ids]


def test_many_ids_are_spelled_in_one_query_by_several_threads() -> None:
    with duckdb.connect(config={"threads": 4}) as connection:
        teach_normalizing(connection, NORMALIZATIONS)
        connection.execute("CREATE TABLE ids AS SELECT ' ÉLÈVE' || i AS user_id, i FROM range(100_000) t(i)")
        query = f"SELECT count(*) FROM ids WHERE {normalized('user_id', NORMALIZATIONS)} = 'élève' || i"
        assert connection.execute(query).fetchone() == (100_000,)
