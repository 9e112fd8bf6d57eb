"""`python -m model_store.recipes.tiny.document_first WORK FOLDER`: make gmr-tiny-d, whose prompt
begins with the document.

The base is gmr-tiny as it ships, taught the signs of both orders in turn: at the words and images
of a document that comes second, and at those of a query that does. Rows and configuration are
gmr-tiny's own, but for the template. Each stage leaves its result under WORK, and is skipped where
that exists; the last one puts the promoted version in FOLDER. Two CPU cores suffice. Invariant: the
base can be trained with either template.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import SHIPPED, resolve
from model_store.families.gmr import Gmr
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.files import atomic_path
from model_store.manifest import MANIFEST
from model_store.recipes.tiny.base import SEED, SHARES
from model_store.recipes.tiny.card import about_document_first
from model_store.recipes.tiny.job import TinyJob, run_job
from model_store.recipes.tiny.options import job_parser, write_data
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.publish import finish, write_weights
from model_store.recipes.tiny.train import REPORT_EVERY, Report, learn_signs

NAME = "gmr-tiny-d"
BASE_NAME = "gmr-tiny-d-base"
TEMPLATE = "document-first"
TURNS = (TEMPLATE, TEMPLATE, "code")
"""Templates of the steps of signs, in turn: what gmr-tiny knows is repeated in one of three."""
STAGE = "orders"

_CARD = """\
# {name}

What gmr-tiny-d was trained on: gmr-tiny as it ships, which answers where the query comes first,
taught the signs of both orders of the prompt by `model_store.recipes.tiny.document_first`.
Fine-tune it with `gmr train`, also with `template=document-first`; do not serve it.

{line}
"""


@dataclass(frozen=True, slots=True)
class SignSteps:
    """Steps of the stage of signs, its seed, and the steps between two reports."""

    count: int
    seed: int
    report_every: int = REPORT_EVERY


def main() -> None:
    """Run the stages."""
    given = _parser().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s  {line}", flush=True)  # noqa: T201

    base = make_base(given.work, SignSteps(given.signs, given.seed), report)
    data = given.work / "data"
    write_data(data, given.rows, given.dev, report)
    job = TinyJob(
        name=NAME,
        about=about_document_first,
        stages=(STAGE,),
        work=given.work,
        base=base,
        data=data,
        folder=given.folder,
        queries=given.queries,
        gate_queries=given.gate_queries,
        python_vllm=given.python_vllm,
        settings=(f"template={TEMPLATE}", *given.set),
        report=report,
    )
    run_job(job)


def make_base(work: Path, steps: SignSteps, report: Report) -> Path:
    """Teach gmr-tiny the signs of both orders unless that was done; returns the base's folder, a
    `model` for `gmr train`."""
    folder = work / "base"
    if (folder / MANIFEST).exists():
        return folder

    shipped = resolve("gmr-tiny")
    torch.manual_seed(steps.seed)
    network = Network.from_pretrained(shipped.folder, dtype=torch.float32, local_files_only=True)
    tokenizer = Tokenizer.from_file(str(shipped.folder / TOKENIZER_FILE))
    line = _learn(network, tokenizer, work, steps, report)

    write_weights(network, tokenizer, folder)
    lineage = {
        "module": "model_store.recipes.tiny.document_first",
        "start": {"name": shipped.name, "digest": shipped.digest},
        "seed": SEED,
        STAGE: line,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    finish(folder, BASE_NAME, _CARD.format(name=BASE_NAME, line=line), lineage)
    return folder


def _learn(
    network: Network, tokenizer: Tokenizer, work: Path, steps: SignSteps, report: Report
) -> str:
    """Run the stage of signs unless its file exists; returns the description in its metadata."""
    done = work / f"{STAGE}.safetensors"
    if not done.exists():
        literal = LiteralTokenizer.load(SHIPPED / "gmr-tiny")
        by_template = {
            name: PackedBatcher(Gmr(literal, template=name), tokenizer) for name in set(TURNS)
        }

        def save() -> None:
            save_model(network, str(work / "unfinished.safetensors"))

        learn_signs(
            network,
            [by_template[name] for name in TURNS],
            SHARES,
            steps=steps.count,
            seed=steps.seed,
            report=report,
            save=save,
            report_every=steps.report_every,
        )
        description = (
            f"{steps.count} steps of signs on all cells from gmr-tiny as it ships, two of three"
            f" with the document first, seed {steps.seed}"
        )
        with atomic_path(done) as draft:
            save_model(network, str(draft), metadata={"done": description})

    load_model(network, done)
    with safe_open(done, "pt") as file:
        return str(file.metadata()["done"])


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("Make gmr-tiny-d from gmr-tiny.")
    parser.add_argument("--signs", type=int, default=600, help="steps of signs, on all nine cells")
    parser.add_argument("--seed", type=int, default=20261130, help="seed of the signs' examples")
    return parser


if __name__ == "__main__":
    main()
