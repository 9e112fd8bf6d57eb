"""Options that the recipes share, and the rows that they train on.

Depends on generated cells, not on a network. Invariant: the same options give the same rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model_store.recipes.tiny import rows
from model_store.recipes.tiny.base import SEED
from model_store.recipes.tiny.train import Report
from model_store.synthetic import cells


def job_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of everything behind the base."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument(
        "folder", type=Path, help="where the checkpoint goes; what is there is replaced"
    )
    parser.add_argument("--rows", type=int, default=8000, help="rows to learn answers from")
    parser.add_argument(
        "--dev",
        type=int,
        default=90,
        help="rows that the training looks at, and does not learn from",
    )
    parser.add_argument(
        "--queries", type=int, default=200, help="held-out queries a cell for the card's table"
    )
    parser.add_argument(
        "--gate-queries", type=int, default=50, help="held-out queries a cell for the gate"
    )
    parser.add_argument(
        "--python-vllm",
        type=Path,
        help="an interpreter that has vLLM, to hold the result against it",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting of gmr-tiny.yaml",
    )
    return parser


def write_data(folder: Path, train: int, dev: int, report: Report) -> None:
    """Write the rows for training and those held out, unless they exist."""
    for name, count, shares in (("train", train, rows.SHARES), ("dev", dev, cells.CELLS)):
        path = folder / f"{name}.jsonl"
        if not path.exists():
            report(f"writing {count} rows to {path}")
            rows.write_rows(path, count, names=shares, seed=SEED)
