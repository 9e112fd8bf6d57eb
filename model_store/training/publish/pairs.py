"""Logits of golden pairs by transformers for the family's token ids, one pair at a time, in fp32.

Depends on prompts, pictures and a loaded network, not on files. Invariant: pairs are neither
batched, padded, cut nor resized, so a difference between two calls is a difference between two
networks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor

from model_store.checkpoint import Checkpoint
from model_store.evaluation.naive import NaiveReranker
from model_store.families.family import Family
from model_store.families.generated_answer import AnswerReader
from model_store.families.prompt import Image, Item, PairTooLong, PairUnreadable, Prompt
from model_store.families.readout import GeneratedScore
from model_store.golden import GoldenPair, Pixels, Side
from model_store.networks.score_row import score_row


class PublishRefused(Exception):
    """A checkpoint or adapter that must not be published; the text is one sentence."""


def prompt_of(family: Family, pair: GoldenPair) -> Prompt:
    """A pair's prompt; raises `PublishRefused` where the family cannot render it."""
    items = [_item(pair.document)]
    (prompt,) = family.render((pair.instruction,), _item(pair.query), items, truncate=False)
    if isinstance(prompt, PairUnreadable):
        raise PublishRefused(f"The model's prompt has no place for a golden pair of {pair.cell}.")
    if isinstance(prompt, PairTooLong):
        raise PublishRefused(f"A golden pair of {pair.cell} has more than {prompt.limit} tokens.")
    return prompt


def has_pictures_on_both_sides(pair: GoldenPair) -> bool:
    """True for a pair whose pictures other programs swap where the prompt begins with the
    document: they read them in the order of query and document."""
    return all(
        any(not isinstance(part, str) for part in side) for side in (pair.query, pair.document)
    )


@torch.inference_mode()
def logits_of(
    network: Any,
    checkpoint: Checkpoint,
    pairs: Sequence[GoldenPair],
    *,
    by_score_row: bool = False,
) -> list[float]:
    """The raw score of each pair, by the checkpoint's read-out.

    It comes from the network's own head over the whole vocabulary, or, with `by_score_row`, as in
    the service: the product of the last hidden state with the read-out's row, in fp32. Raises
    `PublishRefused` where a score is not finite.
    """
    family = checkpoint.family
    row = score_row(network, family.readout, family.label_ids)
    found: list[float] = []
    for pair in pairs:
        inputs = inputs_of(network, checkpoint, pair)
        if by_score_row:
            # the network without the head of its vocabulary
            output = network.model(**inputs, use_cache=False)
            logit = float(output.last_hidden_state[0, -1].float() @ row)
        else:
            output = network(**inputs, use_cache=False, logits_to_keep=1)
            logit = family.readout.combine(output.logits[0, -1, list(family.label_ids)].tolist())
        if not math.isfinite(logit):
            raise PublishRefused(f"The logit of a golden pair of {pair.cell} is {logit}.")
        found.append(logit)

    return found


@torch.inference_mode()
def written_score(network: Any, checkpoint: Checkpoint, pair: GoldenPair) -> float | None:
    """The score that a network writes for a pair, by the most likely tokens of transformers' own
    forward passes; None where it writes none."""
    readout = checkpoint.family.readout
    assert isinstance(readout, GeneratedScore)
    reader = AnswerReader(checkpoint.family.tokenizer, readout, readout.max_tokens)
    ids, cache = inputs_of(network, checkpoint, pair)["input_ids"], None
    while not reader.ended:
        output = network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logprobs = output.logits[0, -1].float().log_softmax(-1)
        token = int(logprobs.argmax())
        reader.add(token, float(logprobs[token]))
        ids, cache = torch.tensor([[token]], device=ids.device), output.past_key_values
    return reader.answer.score


def model_card_logit(loop: NaiveReranker, pair: GoldenPair) -> float:
    """The same by the loop of model cards, which shares no code with this project's prompts."""
    return loop.logit(pair.instruction, _loaded(pair.query), _loaded(pair.document), frugal=True)


def inputs_of(network: Any, checkpoint: Checkpoint, pair: GoldenPair) -> dict[str, Tensor]:
    """A pair as transformers' network takes it, on the network's device."""
    family, tower = checkpoint.family, checkpoint.architecture.vision
    prompt = prompt_of(family, pair)
    ids = torch.tensor([prompt.ids])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if tower is not None and family.image_token_id is not None:
        inputs["mm_token_type_ids"] = torch.eq(ids, family.image_token_id).int()
        parts = (*pair.query, *pair.document)
        pictures = {_image(part): part for part in parts if not isinstance(part, str)}
        if pictures:
            # a prompt may begin with the document
            patches = np.concatenate([tower.patches(pictures[image]) for image in prompt.images])
            inputs[tower.patches_input] = torch.from_numpy(patches)
            inputs[tower.grids_input] = torch.tensor([tower.grid(each) for each in prompt.images])

    return {name: tensor.to(network.device) for name, tensor in inputs.items()}


def _loaded(side: Side) -> list[str | Pil.Image]:
    return [part if isinstance(part, str) else Pil.fromarray(part) for part in side]


def _item(side: Side) -> Item:
    return tuple(part if isinstance(part, str) else _image(part) for part in side)


def _image(pixels: Pixels) -> Image:
    return Image(hashlib.sha256(pixels.tobytes()).digest(), pixels.shape[1], pixels.shape[0])
