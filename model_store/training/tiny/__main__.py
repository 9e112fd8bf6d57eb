"""`python -m model_store.training.tiny WORK FOLDER`: make gmr-tiny from nothing.

Each stage writes its result under WORK when it is done and is passed over if that is there; the last one writes the checkpoint to
FOLDER. Two CPU cores suffice.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer

from model_store.families.gmr import Gmr
from model_store.families.tokens import LiteralTokenizer
from model_store.training.tiny import cells
from model_store.training.tiny.batches import Batcher
from model_store.training.tiny.network import begin
from model_store.training.tiny.tokenizer import train_tokenizer
from model_store.training.tiny.train import judge, see

SEED = 20261121


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description="Make gmr-tiny from nothing.")
    parser.add_argument("work", type=Path, help="where the stages keep their results")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--see", type=int, default=6000, help="steps of the vision stage")
    parser.add_argument("--match", type=int, default=800, help="steps of the first stage of answers, on text alone")
    parser.add_argument("--judge", type=int, default=8000, help="steps of the second stage of answers, on all nine cells")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s  {line}", flush=True)  # noqa: T201

    def keep() -> None:
        save_model(network, str(given.work / "unfinished.safetensors"))

    tokenizer_file = given.work / "tokenizer.json"
    if not tokenizer_file.exists():
        train_tokenizer().save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batcher = Batcher(Gmr(LiteralTokenizer.load(given.work)), tokenizer)
    network = begin(tokenizer, SEED)
    stages = {
        "see": lambda: see(network, batcher, steps=given.see, seed=SEED, report=report),
        "match": lambda: judge(network, batcher, ["T-T"], steps=given.match, seed=SEED, report=report, keep=keep),
        "judge": lambda: judge(network, batcher, cells.CELLS, steps=given.judge, seed=SEED + 1, report=report, keep=keep),
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
