"""`python -m model_store.recipes.tiny.texts WORK`: what the next gmr-tiny knows of real texts.

Depends on packages of public registries. Each part leaves its result under WORK and is skipped
where that exists: packages and their passages, tokenizer, the teacher's vectors, rows, meanings of
tokens, and measures of the network before any training on held-out groups. One CPU core suffices.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from model_store.output_files import write_json
from model_store.recipes.tiny.sources.packages import taken_packages
from model_store.recipes.tiny.texts.measures import everyday_questions, hits
from model_store.recipes.tiny.texts.preparation import Preparation


def main() -> None:
    """Run the parts."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    prepared = Preparation(
        given.work, time.monotonic(), rows=given.rows, share=given.share, steps=given.steps
    )
    network = prepared.network().eval()
    found = {
        kind: round(hits(network, prepared.batcher, groups), 3)
        for kind, groups in prepared.measured.items()
    }
    found["everyday"] = round(hits(network, prepared.batcher, everyday_questions()), 3)
    prepared.report(f"hit@1: {json.dumps(found)}")
    packages = [asdict(package) for package in taken_packages(prepared.sources)]
    write_json(given.work / "lineage.json", {"packages": packages, "hit@1": found})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Prepare what the next gmr-tiny knows of texts.")
    parser.add_argument("work", type=Path, help="where the parts keep their results")
    parser.add_argument("--rows", type=int, default=Preparation.rows, help="rows to learn from")
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
