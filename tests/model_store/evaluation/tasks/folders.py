"""Small folders in BEIR's layout."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

DOCUMENTS = [
    {"_id": "d1", "title": "Red", "text": "a red square"},
    {"_id": "d2", "text": "a blue square", "metadata": {"url": "x"}},
    {"_id": "d3", "image": "images/red.png"},
    {"_id": "d4", "text": "a green page", "image": "images/green.jpg"},
    {"_id": "d5", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "red"},
    {"_id": "q2", "text": "which colour?", "image": "images/red.png", "instruction": "Look."},
    {"_id": "q3", "text": "nobody judged this"},
]
QRELS = "query-id\tcorpus-id\tscore\nq2\td3\t2\nq1\td1\t1\nq1\td2\t0\n"


def write_folder(
    folder: Path,
    documents: Iterable[dict[str, Any]] = DOCUMENTS,
    queries: Iterable[dict[str, Any]] = QUERIES,
    qrels: str = QRELS,
) -> Path:
    """Write a dataset with two pictures."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "images").mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "images/red.png")
    Image.new("RGB", (16, 16), "green").save(folder / "images/green.jpg")
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", queries)
    (folder / "qrels/test.tsv").write_text(qrels, encoding="utf-8")
    return folder


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
