"""`python -m model_store.training.tiny WORK FOLDER`: make gmr-tiny from nothing.

Each stage writes its result under WORK when it is done and is passed over if that is there; the last one writes the checkpoint to
FOLDER. Two CPU cores suffice.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.families.gmr import Gmr
from model_store.families.tokens import LiteralTokenizer
from model_store.training.tiny import cells
from model_store.training.tiny.batches import Batcher
from model_store.training.tiny.card import card
from model_store.training.tiny.heldout import measure
from model_store.training.tiny.network import begin
from model_store.training.tiny.publish import finish, write_weights
from model_store.training.tiny.tokenizer import train_tokenizer
from model_store.training.tiny.train import Report, judge, see

SEED = 20261121
_JUDGED = (*cells.CELLS, *["T-VD"] * 3)  # reading two printed words takes longest to learn


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description="Make gmr-tiny from nothing.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--see", type=int, default=4400, help="steps of the vision stage")
    parser.add_argument("--match", type=int, default=600, help="steps of the first stage of answers, on text alone")
    parser.add_argument("--judge", type=int, default=2200, help="steps of the second stage of answers, on all nine cells")
    parser.add_argument("--queries", type=int, default=200, help="held-out queries a cell for the card's table")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s  {line}", flush=True)  # noqa: T201

    tokenizer_file = given.work / "tokenizer.json"
    if not tokenizer_file.exists():
        train_tokenizer().save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batcher = Batcher(Gmr(LiteralTokenizer.load(given.work)), tokenizer)
    network = begin(tokenizer, SEED)
    _run_stages(network, batcher, given, report)
    write_weights(network, tokenizer, given.folder)
    lines = measure(given.folder, batcher, given.queries)
    for line in lines:
        report(f"{line.cell}: nDCG@10 {line.ndcg:.3f}, relevant first {line.first:.3f}")
    lineage = {
        "module": "model_store.training.tiny",
        "seed": SEED,
        "stages": f"{given.see} steps of naming pictures, {given.match} of answering on text, {given.judge} on all cells",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ndcg@10": {line.cell: round(line.ndcg, 4) for line in lines},
    }
    finish(given.folder, card(lines, lineage, network.num_parameters()), lineage)


def _run_stages(network: Network, batcher: Batcher, given: argparse.Namespace, report: Report) -> None:
    """Every stage that was not done before, each from the weights of the one before."""

    def keep() -> None:
        save_model(network, str(given.work / "unfinished.safetensors"))

    stages: dict[str, Callable[[], None]] = {
        "see": lambda: see(network, batcher, steps=given.see, seed=SEED, report=report),
        "match": lambda: judge(network, batcher, ["T-T"], steps=given.match, seed=SEED, report=report, keep=keep),
        "judge": lambda: judge(network, batcher, _JUDGED, steps=given.judge, seed=SEED + 1, report=report, keep=keep),
    }
    for name, run in stages.items():
        done = given.work / f"{name}.safetensors"
        if done.exists():
            load_model(network, done)
        else:
            run()
            save_model(network, str(done))


if __name__ == "__main__":
    main()
