"""`python -m model_store.recipes.tiny.distillation WORK`: the next gmr-tiny's language model.

Depends on packages of public registries. Each stage leaves its result under WORK and is skipped
where that exists: packages and their passages, the teacher's vectors, tokenizer, meanings of
tokens, rows, the training towards the teacher's scores, and measures on held-out groups. One CPU
core suffices. Invariant: a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.output_files import write_json
from model_store.recipes.tiny.distillation.measures import everyday_questions, hits
from model_store.recipes.tiny.distillation.preparation import SEED, Preparation
from model_store.recipes.tiny.distillation.stage import Distillation, distil
from model_store.recipes.tiny.publish import write_weights
from model_store.recipes.tiny.sources.packages import taken_packages
from model_store.training.data.rows import read_examples


def main() -> None:
    """Run the stages."""
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    prepared = Preparation(given.work, given.rows, time.monotonic())
    network = prepared.network()
    if given.measure_start:
        _measure(network, prepared, "start")
    rows = list(read_examples(prepared.row_file))
    settings = Distillation(
        steps=given.steps,
        seed=SEED,
        tokens=given.tokens,
        rate=given.rate,
        constructed_rate=given.constructed_rate,
    )

    def measure(step: int) -> None:
        if step % given.measure_every == 0 or step == given.steps:
            _measure(network, prepared, str(step))

    distil(
        network,
        prepared.batcher,
        rows,
        settings=settings,
        folder=given.work / "distil",
        report=prepared.report,
        measure=measure,
    )
    write_weights(network, prepared.tokenizer, given.work / "texts")
    packages = [asdict(package) for package in taken_packages(prepared.sources)]
    write_json(given.work / "lineage.json", {"packages": packages, "settings": asdict(settings)})


def _measure(network: Network, prepared: Preparation, step: str) -> None:
    network.eval()
    found = {
        kind: round(hits(network, prepared.batcher, groups), 3)
        for kind, groups in prepared.measured.items()
    }
    found["everyday"] = round(hits(network, prepared.batcher, everyday_questions()), 3)
    prepared.report(f"hit@1 at {step}: {found}")
    with (prepared.work / "measures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "hit@1": found}) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Teach the next gmr-tiny its teacher's scores.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument("--rows", type=int, default=60_000, help="rows to learn from")
    parser.add_argument("--steps", type=int, default=4000, help="training steps; 0: prepare alone")
    parser.add_argument("--tokens", type=int, default=8000, help="tokens of a step, about")
    parser.add_argument("--rate", type=float, default=2.5e-4, help="Muon's, of empty layers")
    parser.add_argument(
        "--constructed-rate", type=float, default=5e-5, help="Muon's, of constructed layers"
    )
    parser.add_argument("--measure-every", type=int, default=500, help="steps between measures")
    parser.add_argument(
        "--measure-start", action="store_true", help="measure before the training, too"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
