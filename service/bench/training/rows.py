"""The training rows of `gmr bench --training`: a workload's queries, each with 1 + 16 documents.

Depends on workloads and files, not on a network. Invariant: the rows are files as `gmr train` reads
them, and the same workload and number give the same rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_store.families.tokens import LiteralTokenizer
from service.bench.workloads import INSTRUCTION, Part, make_request

NEGATIVES = 16
"""Negatives of each row, beside its positive (paper, section 5.1)."""


def write_rows(folder: Path, letter: str, count: int, tokenizer: LiteralTokenizer) -> Path:
    """Write `count` rows and their pictures; returns the file."""
    folder.mkdir(parents=True)
    lines: list[str] = []
    for number in range(count):
        request = make_request(letter, NEGATIVES + 1, number, tokenizer)
        parts = (request.query, *request.documents)
        query, positive, *negatives = (
            _side(part, folder, f"{number}-{place}.png") for place, part in enumerate(parts)
        )
        row = {
            "id": str(number),
            "instruction": INSTRUCTION,
            "query": query,
            "positives": [positive],
            "negatives": [negative | {"kind": "random"} for negative in negatives],
        }
        lines.append(json.dumps(row) + "\n")

    path = folder / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _side(part: Part, folder: Path, name: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    part.save(folder / name)
    return {"image": name}
