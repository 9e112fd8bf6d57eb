"""`python -m model_store.recipes.tiny.small FOLDER`: make gmr-tiny-words, a network that counts the
words that a text has of the query, the first stage of a cascade before gmr-tiny.

Its weights are written, not learnt: it has gmr-tiny's tokenizer and prompt, and a
small part of its work. The vision tower's are random, so scores of images mean nothing. Depends on
the prompt's tokens `<Instruct`, `<Query` and `<Document`. Invariant: the tokenizer decides all
weights of the language model, and FOLDER has a manifest once it is complete.

- The first layer's attention tells tokens of the query and of the document apart.
- That of the second lets a token of the document find an equal one of the query, or else the
  mark `<Instruct`, which stands for nothing.
- That of the third sums what was found, at the last token.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import resolve
from model_store.errors import DataError
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.tiny.base import SEED
from model_store.recipes.tiny.network import LanguageSizes, configure, spelled
from model_store.recipes.tiny.publish import finish, write_weights

NAME = "gmr-tiny-words"
SIZES = LanguageSizes(hidden=64, heads=1, layers=3)

_CONSTANT, _IS_NOTHING, _IS_QUERY, _IS_DOCUMENT, _RARITY = range(5)
"""Components of an embedding: one that all tokens have, those of the three marks of the prompt,
of which the first stands for nothing found, and how much a token says, from 0 to 1."""
_IN_QUERY, _IN_DOCUMENT, _FOUND, _COUNT, _CONTENT = range(5, 10)
"""Components that the layers write, and the first of a token's content."""
_LARGE = 4.0
"""Of the constant component, so that states are about equally long whatever else they have."""
_UNIT = ((_LARGE**2 + 3) / SIZES.hidden) ** 0.5
"""The weight that makes 1 of a component of 1 behind a layer's norm."""
_SLOW = 38
"""Dimensions of a head that a few hundred positions hardly turn: the content's."""
_MARK_GAP = 15.0
_EQUAL = 30.0
_NOTHING = 17.0
_OUTSIDE = 40.0
"""Attention logits: between the marks; of equal tokens; of nothing found; and below which tokens of
other parts of the prompt are."""
_FOUND_GAIN = 6.0
_ENOUGH = 6.0
"""Attention logits of a found token that says most, and of nothing: a few such tokens weigh as much
as it does."""
_ANSWER = 0.65
_BALANCE = 0.2

_CARD = """\
# {name}

A network that counts the words that a text has of the query, weighed by their rarity: the first
stage of a cascade before gmr-tiny. `model_store.recipes.tiny.small` wrote its weights; nothing was
learnt. Its scores of images mean nothing.
"""


def main() -> None:
    """Write the checkpoint to FOLDER."""
    parser = argparse.ArgumentParser(description="Make a network that counts equal words.")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes; it must not exist")
    make_small(parser.parse_args().folder)


def make_small(folder: Path) -> None:
    """Write the checkpoint; raises `DataError` where the folder exists."""
    if folder.exists():
        raise DataError(f"{folder} is there already.")

    tiny = resolve("gmr-tiny")
    tokenizer = Tokenizer.from_file(str(tiny.folder / TOKENIZER_FILE))
    network = assemble(tokenizer)
    write_weights(network, tokenizer, folder)
    lineage = {
        "module": "model_store.recipes.tiny.small",
        "tokenizer": {"name": tiny.name, "digest": tiny.digest},
        "seed": SEED,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    finish(folder, NAME, _CARD.format(name=NAME), lineage)


@torch.no_grad()
def assemble(tokenizer: Tokenizer) -> Network:
    """The network in fp32."""
    torch.manual_seed(SEED)
    network = Network(configure(tokenizer, SIZES))
    _embed(network.get_input_embeddings().weight, tokenizer)
    language = network.model.language_model
    language.norm.weight.fill_(1.0)
    for layer in language.layers:
        for parameter in (*layer.self_attn.parameters(), *layer.mlp.parameters()):
            parameter.zero_()

    first, second, third = (layer.self_attn for layer in language.layers)
    _mark_parts(first)
    _find_equals(second)
    _count_found(third)
    return network


def _embed(rows: Tensor, tokenizer: Tokenizer) -> None:
    """Rows whose content is of length 1; rarer tokens have higher ids, since merges are learnt in
    the order of their counts."""
    count = len(rows)
    rows.zero_()
    rows[:, _CONSTANT] = _LARGE
    rows[:, _RARITY] = (torch.arange(count) / count).clamp(min=1 / count).log() / math.log(
        count
    ) + 1
    content = spelled(tokenizer)[:, :_SLOW]  # a slice of random vectors is a random vector
    rows[:, _CONTENT : _CONTENT + _SLOW] = nn.functional.normalize(content)

    for token, component in (
        ("<Instruct", _IS_NOTHING),
        ("<Query", _IS_QUERY),
        ("Query", _IS_QUERY),  # behind a full stop, which takes the "<"
        ("<Document", _IS_DOCUMENT),
    ):
        row = rows[tokenizer.token_to_id(token)]
        row[component], row[_RARITY] = 1.0, 0.0
    for answer, sign in (("yes", 1.0), ("no", -1.0)):
        row = rows[tokenizer.token_to_id(answer)]
        row[_COUNT] = sign * _ANSWER
        row[_CONSTANT] -= sign * _BALANCE


def _mark_parts(attention: Any) -> None:
    """Let each token attend to the last mark before it, and write which one it is."""
    key = _constant_query(attention)
    for number, component in enumerate((_IS_NOTHING, _IS_QUERY, _IS_DOCUMENT), start=1):
        key[component] = number * _MARK_GAP * _UNIT
    _carry(attention, 0, _IS_QUERY, _IN_QUERY)
    _carry(attention, 1, _IS_DOCUMENT, _IN_DOCUMENT)


def _find_equals(attention: Any) -> None:
    """Let each token attend to an equal one of the query, and write how much that one says."""
    key = _constant_query(attention)
    key[_IN_QUERY] = _OUTSIDE * _UNIT
    key[_IS_NOTHING] = (_OUTSIDE + _NOTHING) * _UNIT
    size = attention.head_dim
    weight = (_EQUAL * size**0.5) ** 0.5 * _UNIT
    half = _SLOW // 2
    for number in range(_SLOW):
        # the last pair, which turns least, is that of the constant query
        dimension = size // 2 * (1 + number // half) - 2 - number % half
        for projection in (attention.q_proj.weight, attention.k_proj.weight):
            projection[dimension, _CONTENT + number] = weight
    _carry(attention, 0, _RARITY, _FOUND)


def _count_found(attention: Any) -> None:
    """Let the last token attend to the tokens of the document that found an equal one, and write
    how much those say together."""
    key = _constant_query(attention)
    key[_IN_DOCUMENT] = _OUTSIDE * _UNIT
    key[_IS_NOTHING] = (_OUTSIDE + _ENOUGH) * _UNIT
    key[_FOUND] = _FOUND_GAIN * _UNIT
    _carry(attention, 0, _FOUND, _COUNT)


def _constant_query(attention: Any) -> Tensor:
    """Make one dimension of all queries 1, which positions do not turn; returns the row of keys
    that it meets."""
    slowest = attention.head_dim // 2 - 1
    attention.q_proj.bias[slowest] = attention.head_dim**0.5
    row: Tensor = attention.k_proj.weight[slowest]
    return row


def _carry(attention: Any, value: int, source: int, target: int) -> None:
    """Write a component of the tokens that are attended to into another one."""
    attention.v_proj.weight[value, source] = _UNIT
    attention.o_proj.weight[target, value] = 1.0


if __name__ == "__main__":
    main()
