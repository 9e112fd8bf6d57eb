"""The list of architectures: by name, and by `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import (
    Architecture,
    DecoderArchitecture,
    PairArchitecture,
)
from model_store.networks.bidirectional_llama import BIDIRECTIONAL_LLAMA
from model_store.networks.jina_vl import JINA_VL
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from model_store.networks.qwen2_vl import QWEN2_VL
from model_store.networks.qwen3_vl import QWEN3_VL
from model_store.networks.score_heads import ENCODERS, SCORING_DECODERS
from model_store.networks.text_decoders import TEXT_DECODERS

_DECODERS: tuple[DecoderArchitecture, ...] = (
    QWEN2_5_VL,
    QWEN2_VL,
    JINA_VL,
    QWEN3_VL,
    *TEXT_DECODERS,
    *SCORING_DECODERS,
)
DECODERS: Mapping[str, DecoderArchitecture] = {
    architecture.name: architecture for architecture in _DECODERS
}
_WHOLE_PAIRS: tuple[PairArchitecture, ...] = (*ENCODERS, BIDIRECTIONAL_LLAMA)
WHOLE_PAIRS: Mapping[str, PairArchitecture] = {
    architecture.name: architecture for architecture in _WHOLE_PAIRS
}
"""Networks that read both sides of a pair at once."""
ARCHITECTURES: Mapping[str, Architecture] = {**DECODERS, **WHOLE_PAIRS}


def by_name(name: str) -> Architecture:
    """An architecture; raises `KeyError` for one that is not known."""
    return ARCHITECTURES[name]


def of_config(name: str, config: Mapping[str, Any]) -> Architecture:
    """The architecture of a checkpoint's `config.json`; raises `CheckpointUnusable`.

    Where `architectures` lists several, the first that is known counts. Where it is absent,
    `model_type` alone decides.
    """
    stated = config.get("architectures")
    for architecture in ARCHITECTURES.values():
        listed = stated is None or (isinstance(stated, list) and architecture.name in stated)
        if listed and config.get("model_type") == architecture.model_type:
            return architecture

    raise CheckpointUnusable(f"{name}: {_not_served(config)}.")


def _not_served(config: Mapping[str, Any]) -> str:
    """A clause on a network that is not known, with the nearest that are."""
    stated, model_type = config.get("architectures"), config.get("model_type")
    kin = [each.name for each in ARCHITECTURES.values() if each.model_type == model_type]
    own_code = ""
    if config.get("auto_map"):
        own_code = " (its auto_map names code of the folder's own, which is never executed)"

    if kin:
        served = f"of this model_type, only {' and '.join(kin)}"
    else:
        types = sorted({each.model_type for each in ARCHITECTURES.values()})
        served = f"only the model_types {', '.join(types)}"
    return (
        f"config.json has the architectures {stated!r:.100} and the model_type"
        f" {model_type!r:.40}{own_code}, and {served} can be served"
    )


def decoder_of_config(name: str, config: Mapping[str, Any]) -> DecoderArchitecture:
    """The decoder of a checkpoint's `config.json`; raises `CheckpointUnusable` for a network that
    is none."""
    architecture = of_config(name, config)
    try:
        return DECODERS[architecture.name]
    except KeyError:
        raise CheckpointUnusable(
            f"{name}: its network, {architecture.name}, is no causal decoder: such models are"
            " served, and neither trained, adapted nor sized here."
        ) from None
