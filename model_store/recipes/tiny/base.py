"""The base of gmr-tiny, from nothing: a vision tower that names the contents of a picture, and a
language model that reads signs.

Depends on the order of its stages and their files. Invariant: no stage trains the base to answer. A
stage's file exists once the stage is complete, and its metadata has the stage's description.
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
from model_store.recipes.tiny.network import begin
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.publish import finish, write_weights
from model_store.recipes.tiny.tokenizer import train_tokenizer
from model_store.recipes.tiny.train import Report, learn_signs, see
from model_store.synthetic import cells

NAME = "gmr-tiny-base"
SEED = 20261121
SHARES = (*cells.CELLS, *["T-VD"] * 2, "T-I", "IT-I", "T-T", "I-T")
"""Cells in proportion to their use: reading two printed words takes longest to learn, then scenes.
"""

_CARD = """\
# {name}

What gmr-tiny was trained on, from nothing, by `model_store.recipes.tiny`. Its vision tower names what it sees; its language
model knows signs: yes or no at the end of each word of a document (does the query say it?) and of each image (does it show what
is asked for?). It was never asked for an answer: fine-tune it with `gmr train`, do not serve it.

{stages}
"""


@dataclass(frozen=True, slots=True)
class StageSteps:
    """Training steps of each stage."""

    see: int
    words: int
    signs: int


def make_base(work: Path, steps: StageSteps, report: Report) -> Path:
    """Run the stages that were not run before; returns the base's folder, a `model` for `gmr
    train`."""
    folder = work / "base"
    if (folder / MANIFEST).exists():
        return folder

    tokenizer_file = work / TOKENIZER_FILE
    if not tokenizer_file.exists():
        train_tokenizer().save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    network = begin(tokenizer, SEED)
    batcher = PackedBatcher(Gmr(LiteralTokenizer.load(work)), tokenizer)
    descriptions = _run_stages(network, batcher, work, steps, report)
    write_weights(network, tokenizer, folder)
    lineage = {
        "module": __name__,
        "seed": SEED,
        **descriptions,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    stages = "\n".join(f"- {name}: {line}" for name, line in descriptions.items())
    finish(folder, NAME, _CARD.format(name=NAME, stages=stages), lineage)
    return folder


def _run_stages(
    network: Network, batcher: PackedBatcher, work: Path, steps: StageSteps, report: Report
) -> dict[str, str]:
    """Run each stage from the weights of the one before; returns the description of each."""

    def save() -> None:
        save_model(network, str(work / "unfinished.safetensors"))

    def learn_pictures() -> None:
        see(network, batcher, steps=steps.see, seed=SEED, report=report)

    def learn_words() -> None:
        learn_signs(
            network, [batcher], ["T-T"], steps=steps.words, seed=SEED, report=report, save=save
        )

    def learn_all_signs() -> None:
        learn_signs(
            network, [batcher], SHARES, steps=steps.signs, seed=SEED + 1, report=report, save=save
        )

    stages: dict[str, tuple[str, Callable[[], None]]] = {
        "see": (f"{steps.see} steps of naming pictures, seed {SEED}", learn_pictures),
        "words": (f"{steps.words} steps of signs on T-T, seed {SEED}", learn_words),
        "signs": (f"{steps.signs} steps of signs on all cells, seed {SEED + 1}", learn_all_signs),
    }
    descriptions: dict[str, str] = {}
    for name, (description, run) in stages.items():
        descriptions[name] = _stage(network, work / f"{name}.safetensors", description, run)

    return descriptions


def _stage(network: Network, done: Path, description: str, run: Callable[[], None]) -> str:
    """Run a stage unless its file exists; returns the description in the file's metadata."""
    if not done.exists():
        run()
        with atomic_path(done) as draft:
            save_model(network, str(draft), metadata={"done": description})

    load_model(network, done)
    with safe_open(done, "pt") as file:
        return str(file.metadata()["done"])
