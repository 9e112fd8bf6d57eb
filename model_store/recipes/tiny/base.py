"""The base of gmr-tiny, from nothing: a vision tower that names what it sees, and a language model
that knows signs.

Knows the order of its stages and their files. Invariant: nothing in it was ever asked for an
answer. A stage's file is there once the stage is complete, and says in its own metadata what was
done for it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.families.gmr import Gmr
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.files import atomic_path
from model_store.manifest import MANIFEST
from model_store.recipes.tiny.batches import Batcher
from model_store.recipes.tiny.network import begin
from model_store.recipes.tiny.publish import finish, write_weights
from model_store.recipes.tiny.tokenizer import train_tokenizer
from model_store.recipes.tiny.train import Report, learn_signs, see
from model_store.synthetic import cells

NAME = "gmr-tiny-base"
SEED = 20261121
SHARES = (*cells.CELLS, *["T-VD"] * 2, "T-I", "IT-I", "T-T", "I-T")
"""Cells, as often as signs are learnt from them: reading two printed words takes longest, scenes
come next."""

_CARD = """\
# {name}

What gmr-tiny was trained on, from nothing, by `model_store.recipes.tiny`. Its vision tower names what it sees; its language
model knows signs: yes or no at the end of each word of a document (does the query say it?) and of each image (does it show what
is asked for?). It was never asked for an answer: fine-tune it with `gmr train`, do not serve it.

{stages}
"""


@dataclass(frozen=True, slots=True)
class Steps:
    """How long each stage takes."""

    see: int
    words: int
    signs: int


def make_base(work: Path, steps: Steps, report: Report) -> Path:
    """Run the stages that were not run before; gives the base's folder, which `gmr train` takes for
    its `model`."""
    folder = work / "base"
    if (folder / MANIFEST).exists():
        return folder
    tokenizer_file = work / TOKENIZER_FILE
    if not tokenizer_file.exists():
        train_tokenizer().save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    network = begin(tokenizer, SEED)
    told = _run_stages(
        network, Batcher(Gmr(LiteralTokenizer.load(work)), tokenizer), work, steps, report
    )
    write_weights(network, tokenizer, folder)
    lineage = {
        "module": __name__,
        "seed": SEED,
        **told,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    stages = "\n".join(f"- {name}: {line}" for name, line in told.items())
    finish(folder, NAME, _CARD.format(name=NAME, stages=stages), lineage)
    return folder


def _run_stages(
    network: Network, batcher: Batcher, work: Path, steps: Steps, report: Report
) -> dict[str, str]:
    """Each stage from the weights of the one before; gives what was done for each."""

    def keep() -> None:
        save_model(network, str(work / "unfinished.safetensors"))

    stages: dict[str, tuple[str, Callable[[], None]]] = {
        "see": (
            f"{steps.see} steps of naming pictures, seed {SEED}",
            lambda: see(network, batcher, steps=steps.see, seed=SEED, report=report),
        ),
        "words": (
            f"{steps.words} steps of signs on T-T, seed {SEED}",
            lambda: learn_signs(
                network, batcher, ["T-T"], steps=steps.words, seed=SEED, report=report, keep=keep
            ),
        ),
        "signs": (
            f"{steps.signs} steps of signs on all cells, seed {SEED + 1}",
            lambda: learn_signs(
                network, batcher, SHARES, steps=steps.signs, seed=SEED + 1, report=report, keep=keep
            ),
        ),
    }
    return {
        name: _stage(network, work / f"{name}.safetensors", line, run)
        for name, (line, run) in stages.items()
    }


def _stage(network: Network, done: Path, line: str, run: Callable[[], None]) -> str:
    """Run a stage unless its file is there; gives what the file says was done."""
    if not done.exists():
        run()
        with atomic_path(done) as draft:
            save_model(network, str(draft), metadata={"done": line})
    load_model(network, done)
    with safe_open(done, "pt") as file:
        return str(file.metadata()["done"])
