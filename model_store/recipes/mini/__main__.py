"""`python -m model_store.recipes.mini WORK FOLDER`: make gmr-mini from gmr-tiny and from packages
of public registries, by public commands.

The first stages make a base and rows: packages and their passages, a tokenizer, the teacher's
vectors, meanings of tokens and of pictures; `gmr data check` finds no held-out text or picture in
them. The others run `gmr train`, `gmr publish`, `gmr eval` and `gmr models promote`. Each stage
leaves its result under WORK, and is skipped where that exists; the last one puts the promoted
version in FOLDER. Two CPU cores suffice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from model_store.evaluation.nine_cells import CellMeans
from model_store.recipes.command import run_gmr
from model_store.recipes.mini.base import make_base, named_pictures
from model_store.recipes.mini.card import about
from model_store.recipes.mini.figures import real_hits
from model_store.recipes.mini.preparation import Preparation
from model_store.recipes.mini.rows import write_data, write_held_out
from model_store.recipes.mini.sources.packages import source_table, taken_packages
from model_store.recipes.tiny.job import TinyJob, run_job
from model_store.recipes.tiny.options import job_parser

NAME = "gmr-mini"
_LAST_LAYER = (
    r"lora.target=.*\.language_model\.layers\.3"
    r"\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
"""The adapter weighs what the layers before have found."""
_SMALL_STEPS = ("optimizer.learning_rate=0.00002", "steps=40")
"""At a usual rate it takes from texts what it gives to cells (record 0036)."""


def main() -> None:
    """Run the stages."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    start = time.monotonic()
    given.work.mkdir(parents=True, exist_ok=True)
    from_nothing = not any(given.work.iterdir())
    prepared = Preparation(
        given.work, start, rows=given.texts, share=given.share, steps=given.steps
    )
    pictures = named_pictures(prepared, given.queries)
    base = make_base(prepared, pictures)
    data = given.work / "data"
    held_out = write_held_out(data, prepared.measured, pictures, given.queries)
    _check(prepared, prepared.row_file, held_out.texts)
    write_data(
        data,
        texts=prepared.row_file,
        pictures=pictures,
        held_out=held_out.everything,
        counts=(given.rows, given.rows // 2, given.rows // 4),
        dev=given.dev,
    )
    _check(prepared, data / "train.jsonl", held_out.everything)

    def describe(lines: Sequence[CellMeans], folder: Path) -> str:
        real = real_hits(folder, prepared, pictures, given.queries)
        taken = (time.monotonic() - start) / 60
        return about(
            lines,
            folder,
            real=real,
            sources=source_table(taken_packages(prepared.sources)),
            minutes=taken if from_nothing else None,
        )

    job = TinyJob(
        name=NAME,
        about=describe,
        stages=("texts", "pictures"),
        work=given.work,
        base=base,
        data=data,
        folder=given.folder,
        queries=given.queries,
        gate_queries=given.gate_queries,
        python_vllm=given.python_vllm,
        settings=(_LAST_LAYER, *_SMALL_STEPS, *given.set),
        report=prepared.report,
        rows="rows: four of seven of generated cells, two of real texts, one of named pictures",
    )
    run_job(job)


def _check(prepared: Preparation, rows: Path, held_out: Path) -> None:
    """Raises `CalledProcessError` where rows have a fault, or show what is held out."""
    options = ("--held-out", held_out, "--retriever", "none")
    prepared.report(run_gmr(prepared.report, "data", "check", rows, *options).strip())


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("Make gmr-mini from gmr-tiny and real texts.")
    parser.set_defaults(rows=640)
    parser.add_argument(
        "--texts", type=int, default=Preparation.rows, help="rows of texts to learn meanings from"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=Preparation.share,
        help="of the passages, which the teacher is to read",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=Preparation.steps,
        help="steps that bring means of texts near the teacher's vectors",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
