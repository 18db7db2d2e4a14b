"""Ids spelled as USER_ID_NORMALIZE says, inside DuckDB: exactly as `core.user_ids.normalize` spells them."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb.sqltypes import VARCHAR

from dpdau_assets.core.user_ids import WHITE_SPACE, Normalization, normalize

_FUNCTION = "normalized_in_python"
_ASCII_SPACE = "".join(filter(str.isascii, WHITE_SPACE))


def teach_normalizing(connection: DuckDBPyConnection, how: Collection[Normalization]) -> None:
    """Let queries of this database use what `normalized` makes; once, before the first."""
    if not how:
        return

    def spelled(ids: pa.Array) -> pa.Array:
        return pa.array([normalize(user_id, how) for user_id in ids.to_pylist()], pa.string())

    connection.create_function(_FUNCTION, spelled, [VARCHAR], VARCHAR, type="arrow")  # type: ignore[arg-type]


def normalized(user_id: str, how: Collection[Normalization]) -> str:
    """SQL for the one spelling of an id, an expression of type VARCHAR; null for null.

    Meant for distinct ids: all that are not ASCII go through Python, some hundred thousand a second.
    """
    if not how:
        return user_id
    plain = f"trim({user_id}, '{_ASCII_SPACE}')" if "trim" in how else user_id
    plain = f"lower({plain})" if "casefold" in how else plain
    return f"CASE WHEN strlen({user_id}) = length({user_id}) THEN {plain} ELSE {_FUNCTION}({user_id}) END"
