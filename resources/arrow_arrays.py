"""Between numpy's arrays of numbers and Arrow's, by their buffers; and what DuckDB hands over as Arrow.

Arrow's own way loads pandas first, which takes longer than many an ingest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa


def to_arrow(numbers: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of this type on the same memory; `kind` must have numpy's width and no nulls stand in it."""
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])


def to_numpy(column: pa.ChunkedArray | pa.Array, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """The numbers of a column. Raises pyarrow.ArrowInvalid if one of them is null."""
    if column.null_count:
        raise pa.ArrowInvalid(f"{column.null_count} of {len(column)} numbers are null.")
    dtype = np.dtype(kind)
    chunks = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)
        for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])
        if len(chunk)
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, dtype), *chunks])


def arrow_batches(relation: duckdb.DuckDBPyRelation, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a relation, some at a time. What fails raises duckdb.Error, without words that could quote a row."""
    try:
        yield from relation.to_arrow_reader(rows)
    except (OSError, pa.ArrowException) as error:
        if "Out of Memory" in str(error):
            raise duckdb.OutOfMemoryException from None
        raise duckdb.InvalidInputException("What DuckDB said of it is left out.") from None
