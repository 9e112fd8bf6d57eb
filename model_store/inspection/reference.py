"""Raw scores of pairs by other code than an engine's: the reference of golden pairs.

Depends on transformers and a checkpoint, and on no engine. Invariant: pairs are scored one at a
time in fp32, neither batched, padded nor cut, and the prefix of a prompt is read with each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import Checkpoint
from model_store.evaluation import naive
from model_store.evaluation.naive import NaiveReranker
from model_store.families.prompt import Prompt
from model_store.families.readout import GeneratedScore
from model_store.folders.plain import read_config, refuse_quantised
from model_store.folders.weights import count_parameters
from model_store.golden import GoldenPair
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import PairArchitecture
from model_store.networks.catalogue import WHOLE_PAIRS
from model_store.networks.score_head import score_head
from model_store.training.publish.pairs import (
    inputs_of,
    logits_of,
    model_card_logit,
    written_score,
)

_CROSS_ENCODERS = ("sentence-transformers", "text-pair")
"""Families of folders in the form of sentence-transformers, whose scores it defines."""
_BYTES_A_PARAMETER = 4
_OTHER_SCORES = "and golden pairs are fp32: make them for the checkpoint that they were made from"


@dataclass(frozen=True, slots=True)
class Reference:
    """A way to score pairs of a checkpoint."""

    way: str
    """A description for the manifest's lineage."""
    raw_score: Callable[[GoldenPair], float]

    def score(self, pair: GoldenPair) -> float:
        """A pair's raw score; raises `CheckpointUnusable` for one that is not finite."""
        score = self.raw_score(pair)
        if not math.isfinite(score):
            raise CheckpointUnusable(f"The score of a golden pair of {pair.cell} is {score}.")
        return score


def open_reference(checkpoint: Checkpoint, device: str) -> Reference:
    """The way that shares the least code with the service.

    It is the loop of model cards where the checkpoint has its prompt, sentence-transformers where
    the folder is in its form, and else forward passes of transformers' own class over the family's
    token ids: one, or one for each token of a score that is written. Raises `CheckpointUnusable`.
    """
    refuse_quantised(checkpoint.name, checkpoint.folder, _OTHER_SCORES)
    _refuse_unless_memory(checkpoint)
    disable_progress_bar()
    if _has_model_card_loop(checkpoint):
        return _model_card(checkpoint, device)
    if checkpoint.manifest.family in _CROSS_ENCODERS:
        return _cross_encoder(checkpoint, device)
    return _forward(checkpoint, device)


def versions() -> dict[str, str]:
    """Versions of the libraries that scores depend on."""
    found = {}
    for name in ("torch", "transformers", "sentence-transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _has_model_card_loop(checkpoint: Checkpoint) -> bool:
    """True for the prompt and the read-out of the loop in `evaluation.naive`, and a folder with
    what it reads: a chat template and a processor."""
    manifest = checkpoint.manifest
    reads = (manifest.family, manifest.template, checkpoint.readout.name)
    if reads != (naive.FAMILY, naive.TEMPLATE, naive.READ_OUT):
        return False
    needed = ("chat_template.jinja", "preprocessor_config.json")
    return all((checkpoint.folder / name).is_file() for name in needed)


def _model_card(checkpoint: Checkpoint, device: str) -> Reference:
    try:
        loop = NaiveReranker(checkpoint.folder, device=device)
    except Exception as error:  # transformers and Jinja raise many kinds
        raise CheckpointUnusable(
            f"{checkpoint.name}: transformers cannot read its weights, tokenizer, chat template or"
            f" processor ({type(error).__name__})."
        ) from None
    return Reference(
        "the loop of model cards: chat template, processor and whole vocabulary, transformers,"
        " fp32",
        lambda pair: model_card_logit(loop, pair),
    )


def _cross_encoder(checkpoint: Checkpoint, device: str) -> Reference:
    from model_store.training.publish.other_engines import cross_encoder

    try:
        model = cross_encoder.open_cross_encoder(checkpoint.folder, device)
    except Exception as error:  # sentence-transformers and transformers raise many kinds
        raise CheckpointUnusable(
            f"{checkpoint.name}: sentence-transformers cannot read the folder"
            f" ({type(error).__name__})."
        ) from None
    return Reference(
        "sentence-transformers' CrossEncoder.predict, fp32",
        lambda pair: cross_encoder.logit_of(model, pair),
    )


def _forward(checkpoint: Checkpoint, device: str) -> Reference:
    network = _load(checkpoint).to(device).eval()
    whole_pairs = WHOLE_PAIRS.get(checkpoint.architecture.name)
    if whole_pairs is not None:
        whole_pairs.prepare(network, read_config(checkpoint.name, checkpoint.folder))
        return Reference(
            "transformers' own network and head, over the family's token ids, fp32",
            lambda pair: _by_pair(network, whole_pairs, checkpoint, pair),
        )
    readout = checkpoint.readout
    if isinstance(readout, GeneratedScore):
        return Reference(
            "the most likely tokens by transformers' forward passes, over the family's token ids,"
            " fp32",
            lambda pair: _by_answer(network, checkpoint, pair),
        )
    if not readout.labels:
        return Reference(
            "transformers' network without its head and the head's weights, over the family's"
            " token ids, fp32",
            lambda pair: _by_head(network, checkpoint, pair),
        )

    def by_vocabulary(pair: GoldenPair) -> float:
        (logit,) = logits_of(network, checkpoint, [pair])
        return logit

    return Reference(
        "transformers' forward pass and whole vocabulary, over the family's token ids, fp32",
        by_vocabulary,
    )


def _load(checkpoint: Checkpoint) -> Any:
    """transformers' own network of a checkpoint, in fp32 on the CPU."""
    try:
        return checkpoint.architecture.model_class().from_pretrained(
            checkpoint.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointUnusable(
            f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__})."
        ) from error


@torch.inference_mode()
def _by_head(network: Any, checkpoint: Checkpoint, pair: GoldenPair) -> float:
    family = checkpoint.family
    output = network.model(**inputs_of(network, checkpoint, pair), use_cache=False)
    head = score_head(network, family.readout, family.label_ids)
    return float(head(output.last_hidden_state[:, -1])[0])


@torch.inference_mode()
def _by_pair(
    network: Any, architecture: PairArchitecture, checkpoint: Checkpoint, pair: GoldenPair
) -> float:
    query, document = (
        tuple(part for part in side if isinstance(part, str))
        for side in (pair.query, pair.document)
    )
    (prompt,) = checkpoint.family.render((pair.instruction,), query, [document])
    if not isinstance(prompt, Prompt):
        raise CheckpointUnusable(f"A golden pair of {pair.cell} does not fit.")

    ids = torch.tensor([prompt.ids], device=network.device)
    types = torch.tensor([prompt.types], device=network.device) if prompt.types else None
    return float(architecture.scores(network, ids, torch.ones_like(ids), types)[0])


def _by_answer(network: Any, checkpoint: Checkpoint, pair: GoldenPair) -> float:
    """The score that the network writes; raises `CheckpointUnusable` where it writes none."""
    score = written_score(network, checkpoint, pair)
    if score is None:
        raise CheckpointUnusable(f"The model wrote no score for a golden pair of {pair.cell}.")
    return score


def _refuse_unless_memory(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointUnusable` where the weights do not fit into free memory in fp32, where the
    system states how much is free."""
    name, folder = checkpoint.name, checkpoint.folder
    needed = _BYTES_A_PARAMETER * count_parameters(name, folder)
    free = _free_memory()
    if free is not None and needed > free:
        raise CheckpointUnusable(
            f"{name}: its weights take {needed / 1e9:.1f} GB in fp32, and {free / 1e9:.1f} GB of"
            " memory are free."
        )


def _free_memory() -> int | None:
    """Bytes that can be had without swapping, as Linux estimates them; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
