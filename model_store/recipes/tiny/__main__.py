"""`python -m model_store.recipes.tiny WORK FOLDER`: make gmr-tiny from nothing, by public commands.

The first stages make a base and rows of generated examples. The others run `gmr train`, `gmr
publish`, `gmr eval` and `gmr models promote`. Each stage leaves its result under WORK, and is
skipped where that exists; the last one puts the promoted version in FOLDER. Two CPU cores suffice.
"""

from __future__ import annotations

import argparse
import time

from model_store.recipes.tiny import base
from model_store.recipes.tiny.card import about
from model_store.recipes.tiny.job import TinyJob, run_job
from model_store.recipes.tiny.options import job_parser, write_data


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
    write_data(data, given.rows, given.dev, report)
    job = TinyJob(
        name="gmr-tiny",
        about=about,
        stages=("see", "words", "signs"),
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
    parser = job_parser("Make gmr-tiny from nothing.")
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
    return parser


if __name__ == "__main__":
    main()
