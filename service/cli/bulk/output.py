"""The output of a run: the rows of its input with their scores, in their order.

Depends on a finished job, not on how it was done. Invariant: the output appears whole or not at
all, with one row for each row of the input.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_store.errors import DataError, WrongUsage
from model_store.files import atomic_path
from model_store.output_files import output_file
from service.cli.bulk.job import Job
from service.cli.bulk.requests import RESULT_FIELDS, RowShape
from service.cli.bulk.sources import JSON_SUFFIXES, PARQUET_SUFFIX, Row


def check_target(path: Path) -> None:
    """Raise `WrongUsage` for a name whose suffix is none of an output."""
    if path.suffix not in (*JSON_SUFFIXES, PARQUET_SUFFIX):
        raise WrongUsage(f"{path}: scores are written to .jsonl and .parquet files.")


def write_output(job: Job, target: Path, shape: RowShape, *, keep_inputs: bool) -> None:
    """Write the output of a job whose parts are all done.

    Query and candidates are left out, unless `keep_inputs`. Raises `DataError`.
    """
    left_out = () if keep_inputs else (shape.query, shape.documents)
    if target.suffix == PARQUET_SUFFIX:
        _write_parquet(job, target, left_out)
        return

    with output_file(target) as write:
        for rows in _parts(job, left_out):
            for row in rows:
                write(_line(row))


def _parts(job: Job, left_out: tuple[str, ...]) -> Iterator[list[Row]]:
    """The output's rows, part by part."""
    number = 0
    for part in range(len(job.source.part_rows)):
        rows: list[Row] = []
        for row, scores in zip(job.source.part(part), job.scores(part), strict=True):
            kept = {name: value for name, value in (row or {}).items() if name not in left_out}
            rows.append({**kept, "row": number, **scores})
            number += 1
        yield rows


def _line(row: Row) -> bytes:
    """A row as a line of JSON in UTF-8; one with lone surrogates, which UTF-8 lacks, in ASCII."""
    try:
        text = json.dumps(row, ensure_ascii=False, default=_as_json).encode()
    except UnicodeEncodeError:
        text = json.dumps(row, default=_as_json).encode()
    return text + b"\n"


def _as_json(value: Any) -> Any:
    """A value of a Parquet file in JSON: bytes as base64, times as ISO 8601."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _write_parquet(job: Job, target: Path, left_out: tuple[str, ...]) -> None:
    """Write a row group for each part. The schema is that which the rows of all parts have in
    common."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    results = pa.schema(
        [
            ("row", pa.int64()),
            ("scores", pa.list_(pa.float64())),
            ("logits", pa.list_(pa.float64())),
            ("probabilities", pa.list_(pa.float64())),
            (
                "errors",
                pa.list_(
                    pa.struct(
                        [("index", pa.int64()), ("code", pa.string()), ("message", pa.string())]
                    )
                ),
            ),
            ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
        ]
    )
    try:
        schema = results
        for rows in _parts(job, left_out):
            kept = pa.Table.from_pylist(_kept_fields(rows)).schema
            schema = pa.unify_schemas([schema, kept], promote_options="permissive")
        order = [*(name for name in schema.names if name not in results.names), *results.names]
        schema = pa.schema([schema.field(name) for name in order])

        with atomic_path(target) as draft, pq.ParquetWriter(draft, schema) as writer:
            for rows in _parts(job, left_out):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    except UnicodeEncodeError:
        raise DataError(
            f"{target}: a row has text that is not Unicode; write .jsonl instead."
        ) from None
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(
            f"{target}: the rows' other fields have no common type for Parquet"
            f" ({str(error).splitlines()[0][:120]}); write .jsonl instead."
        ) from None


def _kept_fields(rows: list[Row]) -> list[Row]:
    """The fields of the input's rows. Each row has those of all, as pyarrow takes the names of
    columns from the first one."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(name for name in row if name not in RESULT_FIELDS)
    return [{name: row.get(name) for name in names} for row in rows]
