"""gmr-mini's network: gmr-tiny, and in dimensions of their own the meanings of both sides.

Depends on gmr-tiny's weights and on meanings of tokens; nothing is learnt here. Invariant: in the
first 256 dimensions of a state the network computes what gmr-tiny does, and a pair's score is that
one's plus a part that rises with the cosine of the two sides' weighted mean meanings (Arora et al.,
2017, "A simple but tough-to-beat baseline for sentence embeddings"). New heads compute that part:

- In the first layer, each token learns whether it is in the query or in the document.
- In the second, `<Document` reads the mean of the query, and the `<|im_end|>` behind the document
  that of the document. Both are much longer than all else in a state, so that the norm before the
  next layer makes them equally long.
- In the third, `assistant` reads half of their sum, whose squared length is (1 + cosine) / 2.
- In the fourth, the last token reads from `assistant` a constant that the norm has divided by that
  length.

These three tokens lose what gmr-tiny's own heads read from them, which those do without. In every
other state the new dimensions have less than a tenth of the length, so norms change by less than a
hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLConfig
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.recipes.mini.dimensions import (
    AT_ANSWER,
    AT_DOCUMENT,
    AT_END,
    AT_QUERY,
    AT_START,
    HEAD,
    HIDDEN,
    NEW,
    NOTHING,
    ONE,
    OWN,
    SCORE,
    SIDE_LOGIT,
    UNIT,
    WEIGHT,
    WEIGHT_UNIT,
)
from model_store.recipes.mini.heads import Heads, add_means, read_length, read_means, tell_sides
from model_store.recipes.mini.texts.meanings import Meanings
from model_store.recipes.tiny import network as tiny

_MARKED = {
    "<Document>:": AT_DOCUMENT,
    "<Query>:": AT_QUERY,
    "Query>:": AT_QUERY,  # as it is behind an instruction that ends with a full stop
    "<|im_start|>": AT_START,
    "<|im_end|>": AT_END,
    "assistant": AT_ANSWER,
}
_BARE = ("\n", "<|vision_start|>", "<|vision_end|>")
_NO_WEIGHT = -10.0
"""The log weight of a token that no mean includes, unless nothing else is there."""

_THRESHOLD = 0.35
"""The cosine that adds nothing to a score."""
GAIN = 32.0
"""Of the comparison in a score; cells and questions were looked at."""


@dataclass(frozen=True, slots=True)
class PictureMeanings:
    """A map of the vision tower's last hidden features to an image token's meaning: `weight` is
    `[WIDTH, 512]`, `bias` `[WIDTH]`.

    All image tokens have one log weight, and `doubt` of the meaning of nothing, which brings
    cosines nearer to 0.
    """

    weight: Tensor
    bias: Tensor
    log_weight: float
    doubt: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Root mean square of gmr-tiny's own state behind the first layer: of each token,
    `[vocabulary]`, and of image tokens. A norm divides by it, so embeddings are longer by it."""

    tokens: Tensor
    images: float


def configure(tokenizer: Tokenizer) -> Qwen2_5_VLConfig:
    """The architecture: gmr-tiny's with two heads more, and keys and values for each head."""
    config = tiny.configure(tokenizer)
    text = config.text_config
    text.hidden_size = HIDDEN
    text.num_attention_heads = text.num_key_value_heads = HIDDEN // HEAD
    config.vision_config.out_hidden_size = HIDDEN
    return config


@torch.no_grad()
def widen(
    source: Path,
    tokenizer: Tokenizer,
    meanings: Meanings,
    *,
    lengths: Lengths,
    pictures: PictureMeanings,
    gain: float = GAIN,
) -> Network:
    """A network in fp32 of gmr-tiny's folder `source`, for another tokenizer.

    `meanings` are `[vocabulary, WIDTH]`. With a `gain` of 0 its scores are gmr-tiny's.
    """
    own = {name: weight.float() for name, weight in load_file(source / "model.safetensors").items()}
    network = Network(configure(tokenizer))
    for parameter in network.parameters():
        parameter.zero_()
    _copy_language(own, network.model.language_model)
    _copy_vision(own, network.model.visual, lengths.images, pictures)
    rows = embedding_rows(tokenizer, meanings, lengths.tokens, gain)
    network.get_input_embeddings().weight.copy_(rows)

    layers = network.model.language_model.layers
    tell_sides(Heads(layers[0]))
    read_means(Heads(layers[1]), rows)
    add_means(Heads(layers[2]), rows)
    read_length(Heads(layers[3]), rows[_first(tokenizer, "assistant"), ONE], gain)
    return network.eval()


@torch.no_grad()
def embedding_rows(
    tokenizer: Tokenizer, meanings: Meanings, lengths: Tensor, gain: float
) -> Tensor:
    """`[vocabulary, HIDDEN]`: each token's spelling as gmr-tiny has it, and its meaning."""
    longer = lengths / tiny.EMBEDDING_RMS
    vectors = torch.from_numpy(meanings.vectors).clone()
    log_weights = torch.from_numpy(meanings.log_weights).clone()
    rows = torch.zeros(len(vectors), HIDDEN)
    rows[:, :OWN] = tiny.spelled(tokenizer)

    bare = [_first(tokenizer, text) for text in _BARE]
    for text, mark in _MARKED.items():
        first, *others = _ids(tokenizer, text)
        bare += [first, *others]
        rows[first, mark] = UNIT
    vectors[bare], log_weights[bare] = 0, _NO_WEIGHT

    rows[:, OWN:NOTHING] = UNIT * longer[:, None] * vectors
    for text in ("<Document>:", "<|im_end|>"):
        first = _first(tokenizer, text)
        rows[first, NOTHING] = UNIT * longer[first]
    rows[:, WEIGHT] = WEIGHT_UNIT * longer * (log_weights - _side_excess(lengths))
    rows[:, ONE] = UNIT * longer

    # the two labels differ in the score alone, and begin at what the threshold scores
    labels = [_first(tokenizer, text) for text in ("yes", "no")]
    rows[labels, OWN:] = rows[labels, OWN:].mean(0)
    rows[labels, SCORE] = torch.tensor([UNIT, -UNIT])
    rows[_first(tokenizer, "\n"), SCORE] = UNIT * gain / _half_sum(_THRESHOLD)
    return rows


def _side_excess(lengths: Tensor) -> Tensor:
    """The excess of a token's logit in a mean over the usual one: the norm has divided the mark of
    its side by the token's own length."""
    return SIDE_LOGIT * tiny.EMBEDDING_RMS / lengths - 2 * SIDE_LOGIT * tiny.EMBEDDING_RMS


def _half_sum(cosine: float) -> float:
    """The length of half the sum of two unit vectors."""
    return float(((1 + cosine) / 2) ** 0.5)


def _copy_language(own: dict[str, Tensor], language: Any) -> None:
    """gmr-tiny's language model in the first dimensions, with its keys and values for each of its
    heads. Norms divide by the root mean square over all dimensions, of which most are short."""
    share = (OWN / HIDDEN) ** 0.5
    new = torch.full((NEW,), tiny.EMBEDDING_RMS * share / UNIT)
    new[WEIGHT - OWN] *= UNIT / WEIGHT_UNIT
    for number, layer in enumerate(language.layers):
        at = f"model.layers.{number}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            weight = getattr(layer, name).weight
            weight[:OWN] = own[f"{at}.{name}.weight"] * share
            weight[OWN:] = new
        for name in ("q_proj", "k_proj", "v_proj"):
            projection = getattr(layer.self_attn, name)
            weight, bias = (own[f"{at}.self_attn.{name}.{kind}"] for kind in ("weight", "bias"))
            projection.weight[:OWN, :OWN] = weight.repeat(OWN // len(weight), 1)
            projection.bias[:OWN] = bias.repeat(OWN // len(bias))
        layer.self_attn.o_proj.weight[:OWN, :OWN] = own[f"{at}.self_attn.o_proj.weight"]
        for name in ("gate_proj", "up_proj"):
            getattr(layer.mlp, name).weight[:, :OWN] = own[f"{at}.mlp.{name}.weight"]
        layer.mlp.down_proj.weight[:OWN] = own[f"{at}.mlp.down_proj.weight"]

    language.norm.weight[:OWN] = own["model.norm.weight"] * share
    language.norm.weight[SCORE] = 1 / UNIT**2


def _copy_vision(
    own: dict[str, Tensor], visual: Any, length: float, pictures: PictureMeanings
) -> None:
    """gmr-tiny's vision tower, whose last matrix has rows for the new dimensions."""
    for name, parameter in visual.named_parameters():
        weight = own[f"visual.{name}"]
        parameter[: len(weight)] = weight

    longer = length / tiny.EMBEDDING_RMS
    last = visual.merger.mlp[-1]
    last.weight[OWN:NOTHING] = UNIT * longer * pictures.weight
    last.bias[OWN:NOTHING] = UNIT * longer * pictures.bias
    last.bias[NOTHING] = UNIT * longer * pictures.doubt
    last.bias[ONE] = UNIT * longer
    excess = float(_side_excess(torch.tensor(length)))
    last.bias[WEIGHT] = WEIGHT_UNIT * longer * (pictures.log_weight - excess)


def _first(tokenizer: Tokenizer, text: str) -> int:
    return _ids(tokenizer, text)[0]


def _ids(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
