"""FlagEmbedding's rows: the texts `query`, `pos` and `neg`, in JSON lines or parquet.

A row may have a `prompt`, which is its instruction, and an `id`; scores and types are ignored. Does
not depend on other layouts. Invariant: as in `assemble`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from model_store.output_files import check_outputs
from model_store.parts import file_identity
from model_store.training.data.converters.assemble import (
    ShowProgress,
    convert,
    hard_negatives,
    valid_example_line,
    without_progress,
)
from model_store.training.data.converters.outcomes import BadRow, Outcomes, Skipped, clean_text
from model_store.training.data.converters.records import (
    Record,
    RecordReader,
    find_files,
    read_records,
)
from model_store.training.data.rows import MAX_SIDES, Example, Side


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


_rows = RecordReader(_Row, {"": _Row.__struct_fields__})


def convert_flagembedding(
    source: Path,
    target: Path,
    *,
    instruction: str | None = None,
    max_bad: int = 0,
    show_progress: ShowProgress = without_progress,
) -> Outcomes:
    """Write `target`; `instruction` is for rows without a `prompt`. Raises `DataError`."""
    files = find_files(source)
    check_outputs(target, inputs=files)

    def example(record: Record, outcomes: Outcomes) -> bytes:
        row = _rows.read(record)
        text = clean_text(row.query, outcomes)
        if text is None:
            raise Skipped("empty query")
        positives = _sides(row.pos, "positives", outcomes)
        if not positives:
            raise Skipped("no relevant document")
        negatives = hard_negatives(
            _sides(row.neg or [], "negatives", outcomes), positives, outcomes
        )
        _check_length("pos", len(positives), record.location)
        _check_length("neg", len(negatives), record.location)

        made = Example(
            id=str(row.id) if row.id is not None else Path(record.location).name,
            instruction=row.prompt if row.prompt and row.prompt.strip() else instruction,
            query=Side(text, None),
            positives=tuple(positives),
            negatives=negatives,
            location=record.location,
        )
        return valid_example_line(made, target.parent)

    described = {
        "layout": "flagembedding",
        "files": [file_identity(path) for path in files],
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


def _sides(texts: list[str], name: str, outcomes: Outcomes) -> list[Side]:
    """The texts that are not empty, as sides."""
    cleaned = [clean_text(text, outcomes) for text in texts]
    outcomes.counts[f"empty {name} left out"] += cleaned.count(None)
    return [Side(text, None) for text in cleaned if text is not None]


def _check_length(name: str, length: int, location: str) -> None:
    if length > MAX_SIDES:
        raise BadRow(f"{location}: {name} has {length} texts, and {MAX_SIDES} are allowed.")
