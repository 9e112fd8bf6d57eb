"""FlagEmbedding's rows: `query`, `pos` and `neg` as texts, JSON lines or parquet.

Knows those fields, `prompt` (the row's instruction) and `id`; scores and types are read past.
Invariant: as in `assemble`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from model_store.training.data.converters.assemble import (
    ShowProgress,
    checked_line,
    convert,
    no_progress,
)
from model_store.training.data.converters.outcomes import BadRow, Converted, Skipped, text_within
from model_store.training.data.converters.records import Reader, Record, files_of, read_records
from model_store.training.data.identity import key_of
from model_store.training.data.resumable import identity
from model_store.training.data.row_files import check_outputs
from model_store.training.data.rows import MAX_SIDES, Example, Negative, Side


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    pos: list[str]
    neg: list[str] | None = None
    prompt: str | None = None
    id: str | int | None = None
    type: Any = None
    pos_scores: Any = None
    neg_scores: Any = None
    pos_id: Any = None
    neg_id: Any = None


_rows = Reader(_Row, {"": _Row.__struct_fields__})


def convert_flagembedding(
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    max_bad: int = 0,
    show_progress: ShowProgress = no_progress,
) -> Converted:
    """Write `target`; `instruction` is of rows without a `prompt`. Raises `DataError`."""
    files = files_of(source)
    check_outputs(target, inputs=files)

    def example(record: Record, done: Converted) -> bytes:
        place = record[0]
        row = _rows.read(record)
        text = text_within(row.query, done)
        if text is None:
            raise Skipped("empty query")
        positives = _texts(row.pos, "positives", done)
        if not positives:
            raise Skipped("no relevant document")
        negatives = without(_texts(row.neg or [], "negatives", done), positives, done)
        for name, sides in (("pos", positives), ("neg", negatives)):
            if len(sides) > MAX_SIDES:
                raise BadRow(
                    f"{place}: {name} has {len(sides)} texts, and {MAX_SIDES} are allowed."
                )
        identity_of_row = str(row.id) if row.id is not None else f"{Path(place).name}"
        told = row.prompt if row.prompt and row.prompt.strip() else instruction
        made = Example(
            identity_of_row,
            told,
            Side(text, None),
            tuple(positives),
            as_negatives(negatives),
            place,
        )
        return checked_line(made, target.parent)

    described = {
        "layout": "flagembedding",
        "files": [identity(path) for path in files],
        "instruction": instruction,
    }
    return convert(
        target,
        described,
        read_records(files),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


def _texts(texts: list[str], what: str, done: Converted) -> list[Side]:
    """The texts that are not empty, as sides."""
    within = [text_within(text, done) for text in texts]
    done.counts[f"empty {what} left out"] += within.count(None)
    return [Side(text, None) for text in within if text is not None]


def without(negatives: list[Side], positives: list[Side], done: Converted) -> list[Side]:
    """The negatives that equal no positive."""
    known = {key_of(side) for side in positives}
    different = [side for side in negatives if key_of(side) not in known]
    done.counts["negatives left out, which equal a relevant document"] += len(negatives) - len(
        different
    )
    return different


def as_negatives(sides: list[Side]) -> tuple[Negative, ...]:
    """Sides as hard negatives: the source does not say how they were found."""
    return tuple(Negative(side, "hard") for side in sides)
