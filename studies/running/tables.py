"""Rows of cells as Parquet: encoding, decoding and joining, with exact floats."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from studies.errors import StudyError
from studies.running import text

__all__ = ["CELL", "decode", "encode", "frame", "join"]

CELL = "cell"  # the column that the runner adds to every row


def encode(cell: str, rows: Any) -> bytes:
    """The rows of one cell as a Parquet file with the cell's name as first column.

    Raises:
        StudyError: `rows` is not a list of dictionaries with text keys and plain values.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StudyError(f"run_cell of {cell!r} must return a list of dictionaries, not {_kind(rows)}.")
    for row in rows:
        if not all(isinstance(key, str) for key in row) or row.get(CELL, cell) != cell:
            raise StudyError(f"the rows of cell {cell!r} need text keys, and {CELL!r} is kept for the cell's name.")
    plain = [{CELL: cell} | {key: _plain(cell, key, value) for key, value in row.items()} for row in rows]
    try:
        table = pa.Table.from_pylist(plain, schema=_schema(plain))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StudyError(f"the rows of cell {cell!r} do not form a table: {error}.") from error
    return to_bytes(table)


def _schema(rows: list[dict[str, Any]]) -> pa.Schema | None:
    # from_pylist takes its columns from the first row alone: name them all.
    if not rows:
        return pa.schema([(CELL, pa.string())])
    names = list(dict.fromkeys(key for row in rows for key in row))
    return pa.schema([(name, _column_type(name, [row.get(name) for row in rows])) for name in names])


def _column_type(name: str, values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.float64()
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise pa.ArrowInvalid(f"column {name!r} mixes kinds of values") from error


def _plain(cell: str, key: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):  # arrays and tensors of any package
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(cell, key, item) for item in value]
    raise StudyError(
        f"column {key!r} of cell {cell!r} holds {_kind(value)}; use numbers, text, None or short lists of them."
    )


def _kind(value: Any) -> str:
    return f"an object of type {type(value).__name__}"


def to_bytes(table: pa.Table, *, level: int | None = None) -> bytes:
    """A table as an uncompressed-dictionary-free Parquet file: small tables are written fastest so.

    Args:
        level: of the compression, zstd's own by default; 19 takes a second for a third less.
    """
    buffer = io.BytesIO()
    options: Any = {"use_dictionary": False, "write_statistics": False, "compression": "zstd"}
    pq.write_table(table, buffer, compression_level=level, **options)
    return buffer.getvalue()


def decode(content: bytes) -> pa.Table:
    """Inverse of `encode`.

    Raises:
        StudyError: not a Parquet file.
    """
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise StudyError(f"not a Parquet file ({text.line(error, 200)}).") from error


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """All cells' rows in one table; columns missing in a cell are null, integers meet floats as floats.

    Raises:
        StudyError: one column holds different kinds of values in different cells.
    """
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return pa.table({CELL: pa.array([], pa.string())})
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StudyError(f"cells disagree about a column's kind of values: {error}.") from error


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as a data frame."""
    return table.to_pandas(use_threads=False)
