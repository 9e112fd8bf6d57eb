"""Models that are no pointwise rerankers, by what their folders say: listwise ones, those with a
head in each layer, and embedding models.

Depends on names in `config.json` and on the folder's name; loads nothing. Invariant: such a model
is refused with the reason before its weights are read, and a name alone refuses none whose family
the operator has named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_store.manifest import CheckpointUnusable
from model_store.networks.catalogue import ARCHITECTURES


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of model; the patterns are regular expressions."""

    reason: str
    architectures: str
    names: str
    """Of the last part of a hub id or path, in lower case."""


_EMBEDDING = _Kind(
    "an embedding model, which gives vectors of texts and no score of a pair",
    architectures=r"\w+Model",
    names=r"(^|[-_])embed(ding)?s?([-_.]|$)|^gme-",
)
_OTHER_RERANKERS = (
    _Kind(
        "a listwise reranker, which reads all documents of a request at once: a pair's score would"
        " depend on its company",
        architectures=r"JinaForRanking",
        names=r"^jina-reranker-v3|lighton-rerank-lw|rank[-_]?(zephyr|vicuna|gpt)|zip-?rerank"
        r"|^mm-r5|listwise",
    ),
    _Kind(
        "a reranker with a head in each of several layers, and networks are read at their last"
        " layer here",
        architectures=r"LayerWiseMiniCPMForCausalLM|CostWiseGemmaForCausalLM",
        names=r"^bge-reranker-v2-minicpm-layerwise|^bge-reranker-v2\.5-gemma2-lightweight",
    ),
    _Kind(
        "a reranker that reads images and texts in both directions and takes the mean of all"
        " tokens: its network is code of its authors, which is never executed",
        architectures=r"LlamaNemotronVLForSequenceClassification|\w+BidirectionalVL\w+",
        names=r"nemotron-rerank-vl|nemotron-3\.5-rerank",
    ),
)


def refuse_other_architectures(name: str, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointUnusable` for a network that gives no score of a pair alone."""
    stated = config.get("architectures")
    for architecture in stated if isinstance(stated, list) else ():
        if not isinstance(architecture, str) or architecture in ARCHITECTURES:
            continue
        for kind in (*_OTHER_RERANKERS, _EMBEDDING):
            if re.fullmatch(kind.architectures, architecture):
                raise CheckpointUnusable(
                    f"{name}: architectures of config.json has {architecture:.80}, {kind.reason}."
                )


def refuse_other_rerankers(name: str) -> None:
    """Raise `CheckpointUnusable` for a name under which a reranker of another kind is published."""
    for kind in _OTHER_RERANKERS:
        _refuse_named(name, kind)


def refuse_named_embedding(name: str) -> None:
    """Raise `CheckpointUnusable` for a name under which embedding models are published.

    Some have the networks of rerankers, such as Qwen3-VL-Embedding.
    """
    if "rerank" not in _own(name):
        _refuse_named(name, _EMBEDDING)


def _refuse_named(name: str, kind: _Kind) -> None:
    if re.search(kind.names, _own(name)):
        raise CheckpointUnusable(
            f"{name}: by its name it is {kind.reason} (RERANK_MODEL_FAMILY names the family of a"
            " pointwise reranker that is called so)."
        )


def _own(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
