"""Lengths of gmr-tiny's states behind its first layer, by token: the norm of the second layer
divides meanings by them.

Depends on gmr-tiny's first layer and on texts, not on meanings. Invariant: a token that no text has
is measured among tokens at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.families.gmr import DEFAULT_INSTRUCTION, TEMPLATES
from model_store.recipes.mini.network import Lengths
from model_store.recipes.tiny.network import spelled
from model_store.recipes.tiny.packed_batches import pixel_values
from model_store.synthetic import scenes
from model_store.synthetic.pictures import fitted

Pair = tuple[str, str]
"""A query and a document."""
_LONGEST = 300  # tokens of a document
_PICTURES = 16
_SEED = 20261201


@torch.inference_mode()
def measure_lengths(source: Path, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> Lengths:
    """Lengths in gmr-tiny's folder `source`, for the tokens of another tokenizer."""
    network = Network.from_pretrained(source, dtype=torch.float32, local_files_only=True).eval()
    language = network.model.language_model
    language.layers, language.norm = language.layers[:1], nn.Identity()
    language.config.num_hidden_layers = 1
    rows = spelled(tokenizer)

    def lengths(embedded: Tensor) -> Tensor:
        state: Tensor = language(inputs_embeds=embedded[None], use_cache=False).last_hidden_state
        return state[0].square().mean(1).sqrt()

    # The mean of what the norm multiplies by: the reciprocal.
    reciprocals, counts = torch.zeros(len(rows)), torch.zeros(len(rows))
    for ids in (*_natural(tokenizer, pairs), *_random(tokenizer)):
        new = counts[ids] < 3 if len(ids) > _LONGEST else torch.ones(len(ids), dtype=torch.bool)
        reciprocals.index_add_(0, ids[new], 1 / lengths(rows[ids])[new])
        counts.index_add_(0, ids[new], torch.ones(int(new.sum())))

    rng = Random(_SEED)
    shown = [scenes.picture(scenes.any_scene(rng, "train"), rng) for _ in range(_PICTURES)]
    pixels, grids = pixel_values([fitted(picture) for picture in shown])
    tokens = network.model.visual(pixels, grid_thw=grids).pooler_output
    head = rows[_prompt(tokenizer, "", "")[0]]
    of_images = lengths(torch.cat([head, tokens]))[len(head) :]
    return Lengths(counts / reciprocals, float(1 / (1 / of_images).mean()))


def _natural(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> Iterator[Tensor]:
    for query, document in pairs:
        head, tail = _prompt(tokenizer, query, document)
        yield torch.cat([head[:_LONGEST], tail])


def _random(tokenizer: Tokenizer) -> Iterator[Tensor]:
    """All tokens in documents without sense, longer than any natural one."""
    order = torch.randperm(
        tokenizer.get_vocab_size(), generator=torch.Generator().manual_seed(_SEED)
    )
    for part in order.split(_LONGEST):
        head, tail = _prompt(tokenizer, "how to do it", "")
        yield torch.cat([head, part, tail])


def _prompt(tokenizer: Tokenizer, query: str, document: str) -> tuple[Tensor, Tensor]:
    """The prompt's tokens up to the document's end, and those behind it."""
    first, second = TEMPLATES["code"]
    head = first.format(instruction=DEFAULT_INSTRUCTION, query=query)
    begin, tail = second.split("{document}")
    first_ids, second_ids, last_ids = (
        tokenizer.encode(text, add_special_tokens=False).ids
        for text in (head, begin + document, tail)
    )
    return torch.tensor([*first_ids, *second_ids]), torch.tensor(last_ids)
