"""`python -m model_store.recipes.erank_tiny WORK`: a small ERank from nothing, by public commands.

The first part makes a base and generated data; the others run `gmr data answers`, and for each
seed `gmr train`, `gmr publish` and `gmr eval` of both stages. Each part leaves its result under
WORK, and is skipped where that exists. One CPU core suffices.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from model_store.recipes.erank_tiny.base import make_base
from model_store.recipes.erank_tiny.job import ErankJob, run_job


def main() -> None:
    """Run all parts."""
    given = _parser().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s  {line}", flush=True)  # noqa: T201

    job = ErankJob(
        work=given.work,
        base=make_base(given.work),
        rows=given.rows,
        queries=given.queries,
        seeds=given.seeds,
        sft=given.sft,
        grpo=given.grpo,
        report=report,
    )
    run_job(job)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make a small ERank from nothing.")
    parser.add_argument("work", type=Path, help="where the parts keep their results")
    parser.add_argument("--rows", type=int, default=400, help="rows to learn from")
    parser.add_argument("--queries", type=int, default=200, help="held-out queries to measure on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for stage in ("sft", "grpo"):
        parser.add_argument(
            f"--{stage}",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help=f"another setting of erank-tiny-{stage}.yaml",
        )
    return parser


if __name__ == "__main__":
    main()
