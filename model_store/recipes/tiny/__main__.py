"""`python -m model_store.recipes.tiny WORK FOLDER`: make gmr-tiny from nothing, by public commands.

The first stages make a base and rows of generated examples. The others run `gmr train`, `gmr
publish`, `gmr eval` and `gmr models promote`. Each stage leaves its result under WORK, and is
skipped where that exists; the last one puts the promoted version in FOLDER. Two CPU cores suffice.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from model_store.recipes.tiny import base, rows
from model_store.recipes.tiny.job import TinyJob, run_job
from model_store.synthetic import cells


def main() -> None:
    """Run the stages."""
    given = _parser().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s  {line}", flush=True)  # noqa: T201

    steps = base.StageSteps(see=given.see, words=given.words, signs=given.signs)
    base_folder = base.make_base(given.work, steps, report)
    data = given.work / "data"
    files = (("train", given.rows, rows.SHARES), ("dev", given.dev, cells.CELLS))
    for name, count, shares in files:
        path = data / f"{name}.jsonl"
        if not path.exists():
            report(f"writing {count} rows to {path}")
            rows.write_rows(path, count, names=shares, seed=base.SEED)

    job = TinyJob(
        work=given.work,
        base=base_folder,
        data=data,
        folder=given.folder,
        queries=given.queries,
        gate_queries=given.gate_queries,
        python_vllm=given.python_vllm,
        settings=given.set,
        report=report,
    )
    run_job(job)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make gmr-tiny from nothing.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument(
        "folder", type=Path, help="where the checkpoint goes; what is there is replaced"
    )
    parser.add_argument("--see", type=int, default=4400, help="steps of the vision stage")
    parser.add_argument(
        "--words", type=int, default=400, help="steps of the first stage of signs, on text alone"
    )
    parser.add_argument(
        "--signs",
        type=int,
        default=2200,
        help="steps of the second stage of signs, on all nine cells",
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


if __name__ == "__main__":
    main()
