"""A folder in BEIR's layout, and `gmr eval` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SECONDS = 300


def gmr_eval(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "eval", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | environment,
    )


def write_folder(folder: Path, queries: int, documents: int = 3) -> Path:
    """Queries of numbers, each with the same documents as candidates, the first one relevant."""
    folder.mkdir()
    _write(
        folder / "corpus.jsonl", ({"_id": f"d{n}", "text": f"text {n}"} for n in range(documents))
    )
    _write(folder / "queries.jsonl", ({"_id": f"q{n}", "text": f"row {n}"} for n in range(queries)))
    (folder / "qrels").mkdir()
    judged = [f"q{number}\td0\t1\n" for number in range(queries)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    ranks = [
        f"q{query} Q0 d{document} {document + 1} {documents - document} run\n"
        for query in range(queries)
        for document in range(documents)
    ]
    (folder / "candidates.trec").write_text("".join(ranks))
    return folder


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
