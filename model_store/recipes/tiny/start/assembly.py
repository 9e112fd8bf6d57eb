"""The next gmr-tiny's network before training, of a tokenizer and meanings of its tokens.

Depends on the prompt's fixed text, not on data. Invariant: tokenizer, meanings and seed decide all
weights, and the tokens of a prompt that are of no text have no part in a text's mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from model_store.recipes.tiny import network as shipped
from model_store.recipes.tiny.start.meanings import Meanings
from model_store.recipes.tiny.start.pooling import (
    AT_DOCUMENT,
    AT_QUERY,
    AT_START,
    BEFORE,
    HIDDEN,
    SPELLING,
    begin_pooling,
    embeddings,
    mark_tokens,
)

LAYERS = 6
KEY_HEADS = 2
_MARKED = {
    "<Document>:": AT_DOCUMENT,
    "<Query>:": AT_QUERY,
    "Query>:": AT_QUERY,  # as it is behind an instruction that ends with a full stop
    "<|im_start|>": AT_START,
}
_BARE = ("<|im_end|>", "\n", "assistant")


def configure(tokenizer: Tokenizer, layers: int = LAYERS) -> Qwen2_5_VLConfig:
    """The architecture: as today's, but deeper and with two heads of keys."""
    config = shipped.configure(tokenizer)
    text = config.text_config
    text.num_hidden_layers = layers
    text.num_key_value_heads = KEY_HEADS
    text.layer_types = ["full_attention"] * layers
    return config


@torch.no_grad()
def assemble(
    tokenizer: Tokenizer,
    meanings: Meanings,
    *,
    labels: Sequence[int],
    seed: int,
    layers: int = LAYERS,
) -> Qwen2_5_VLForConditionalGeneration:
    """A network in fp32 whose scores of texts rise with the cosine of their means; `labels` are
    the tokens for and against relevance."""
    torch.manual_seed(seed)
    network = Qwen2_5_VLForConditionalGeneration(configure(tokenizer, layers))
    rows = embedding_rows(tokenizer, meanings, labels)
    network.get_input_embeddings().weight.copy_(rows)
    begin_pooling(network)
    # adds nothing at first, as all layers between, and soon finds what both sides have
    shipped.attend_to_equals(network.model.language_model.layers[BEFORE].self_attn)
    return network


def embedding_rows(tokenizer: Tokenizer, meanings: Meanings, labels: Sequence[int]) -> torch.Tensor:
    """`[vocabulary, 256]`; the first token of each part's name is marked."""
    rows = embeddings(
        torch.from_numpy(meanings.vectors),
        shipped.spelled(tokenizer)[:, : HIDDEN - SPELLING],
        torch.from_numpy(meanings.log_weights),
    )
    marks: dict[int, int] = {}
    bare: set[int] = set()
    for text, mark in _MARKED.items():
        first, *others = _ids(tokenizer, text)
        marks[first] = mark
        bare.update(others)
    for text in _BARE:
        bare.update(_ids(tokenizer, text))

    mark_tokens(rows, marks, labels, sorted(bare - set(marks)))
    return rows


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
