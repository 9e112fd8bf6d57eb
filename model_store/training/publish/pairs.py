"""Logits of golden pairs as transformers gives them for the family's token ids, one pair at a time,
in fp32.

Knows prompts, pictures and a network that is loaded, no files. Invariant: nothing is batched,
padded, cut or resized, so a difference between two calls is a difference between two networks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.evaluation.naive import NaiveReranker
from model_store.families.family import Family
from model_store.families.prompt import Image, Item, Prompt
from model_store.golden import GoldenPair, Pixels, Side
from model_store.networks.qwen2_5_vl_images import grid, patches


class PublishRefused(Exception):
    """Something that must not be published; its text is one sentence."""


def prompt_of(family: Family, pair: GoldenPair) -> Prompt:
    """A pair's prompt; raises `PublishRefused` where the family cannot take it whole."""
    prompt = family.render(
        (pair.instruction,), _item(pair.query), [_item(pair.document)], truncate=False
    )[0]
    if not isinstance(prompt, Prompt):
        raise PublishRefused(f"A golden pair of {pair.cell} has more than {prompt.limit} tokens.")
    return prompt


@torch.inference_mode()
def logits_of(
    network: Network, family: Family, pairs: Sequence[GoldenPair], *, two_rows: bool = False
) -> list[float]:
    """logit(yes) - logit(no) of each pair.

    By the network's own head over the whole vocabulary, or, with `two_rows`, as the service does
    it: the head's two rows in fp32 on the last hidden state. Raises `PublishRefused` where one is
    not finite.
    """
    found = []
    for pair in pairs:
        inputs = _inputs(network, family, pair)
        if two_rows:
            hidden = network.model(**inputs, use_cache=False).last_hidden_state[0, -1]
            yes, no = (
                network.get_output_embeddings().weight[list(family.label_ids)].float()
                @ hidden.float()
            )
        else:
            yes, no = network(**inputs, use_cache=False, logits_to_keep=1).logits[
                0, -1, list(family.label_ids)
            ]
        logit = float(yes) - float(no)
        if not math.isfinite(logit):
            raise PublishRefused(f"The logit of a golden pair of {pair.cell} is {logit}.")
        found.append(logit)
    return found


def model_card_logit(loop: NaiveReranker, pair: GoldenPair) -> float:
    """The same by the loop that model cards print, which uses nothing of this project."""
    query, document = (
        [part if isinstance(part, str) else Pil.fromarray(part) for part in side]
        for side in (pair.query, pair.document)
    )
    return loop.logit(pair.instruction, query, document, frugal=True)


def _inputs(network: Network, family: Family, pair: GoldenPair) -> dict[str, Tensor]:
    ids = torch.tensor([prompt_of(family, pair).ids])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": torch.eq(ids, family.image_token_id or -1).int(),
    }
    pictures = [part for part in (*pair.query, *pair.document) if not isinstance(part, str)]
    if pictures:
        inputs["pixel_values"] = torch.from_numpy(
            np.concatenate([patches(picture) for picture in pictures])
        )
        inputs["image_grid_thw"] = torch.tensor([grid(_image(picture)) for picture in pictures])
    return {name: tensor.to(network.device) for name, tensor in inputs.items()}


def _item(side: Side) -> Item:
    return tuple(part if isinstance(part, str) else _image(part) for part in side)


def _image(pixels: Pixels) -> Image:
    return Image(hashlib.sha256(pixels.tobytes()).digest(), pixels.shape[1], pixels.shape[0])
