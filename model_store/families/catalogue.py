"""The list of families: by the name in a manifest, and by what a plain folder holds.

Depends on every family, and is the only module that does. Invariant: each family has a name of its
own, and a folder that several recognise gets the one that is most certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.families.agreement import difference
from model_store.families.bge_reranker_v2_gemma import BgeRerankerV2Gemma
from model_store.families.erank import ERank
from model_store.families.family import FamilyKind
from model_store.families.gmr import Gmr
from model_store.families.jina_reranker_m0 import JinaRerankerM0
from model_store.families.mono_qwen2_vl import MonoQwen2VL
from model_store.families.mxbai_rerank_v2 import MxbaiRerankV2
from model_store.families.nemotron_rerank import NemotronRerank
from model_store.families.qwen3_reranker import Qwen3Reranker
from model_store.families.qwen3_vl_reranker import Qwen3VLReranker
from model_store.families.readout import GeneratedScore, ReadOut
from model_store.families.recognition import FolderFacts, Rank, Recognition
from model_store.families.sentence_transformers.kind import SentenceTransformers
from model_store.families.text_pair.family import TextPair
from model_store.families.zerank import Zerank
from model_store.manifest import CheckpointUnusable, Manifest

_ALL: tuple[FamilyKind, ...] = (
    Gmr,
    Qwen3Reranker,
    Qwen3VLReranker,
    JinaRerankerM0,
    MonoQwen2VL,
    MxbaiRerankV2,
    Zerank,
    BgeRerankerV2Gemma,
    ERank,
    SentenceTransformers(),
    TextPair,
    NemotronRerank,
)
FAMILIES: Mapping[str, FamilyKind] = {kind.name: kind for kind in _ALL}


def family_named(model: str, family: str) -> FamilyKind:
    """The family of a name; raises `CheckpointUnusable` for one that is not known."""
    try:
        return FAMILIES[family]
    except KeyError:
        raise CheckpointUnusable(
            f"{model}: the model family {family!r} is not known; it is one of"
            f" {', '.join(FAMILIES)}."
        ) from None


def family_of(manifest: Manifest) -> FamilyKind:
    """The family that a manifest names; raises `CheckpointUnusable` for one that is not known."""
    return family_named(manifest.name, manifest.family)


def recognise(facts: FolderFacts) -> tuple[FamilyKind, Recognition]:
    """The family of a folder that has no manifest, and the reason; raises `CheckpointUnusable`."""
    found = recognitions(facts)
    if not found:
        raise CheckpointUnusable(
            f"{facts.name}: no known family of rerankers has such a folder; RERANK_MODEL_FAMILY can"
            f" name one of {', '.join(FAMILIES)}."
        )
    return found[0]


def recognitions(facts: FolderFacts) -> list[tuple[FamilyKind, Recognition]]:
    """Every family that recognises a folder, the most certain first.

    Files of the folder that describe another prompt or read-out than that of the family which its
    name tells are more certain than the name.
    """
    found: list[tuple[FamilyKind, Recognition]] = []
    for kind in FAMILIES.values():
        recognition = kind.recognise(facts)
        if recognition:
            found.append((kind, recognition))
    found.sort(key=lambda each: -each[1].rank)  # stable: the list's order among equals
    return _described_first(facts, found)


def _described_first(
    facts: FolderFacts, found: list[tuple[FamilyKind, Recognition]]
) -> list[tuple[FamilyKind, Recognition]]:
    described = [each for each in found if each[1].rank is Rank.DESCRIBED]
    if not described or found[0][1].rank is not Rank.NAMED:
        return found

    (named, _), (kind, recognition) = found[0], described[0]
    differing = difference(facts, named, kind)
    if not differing:
        return found
    reason = f"{recognition.reason}, whose {differing} is not that of {named.name}"
    others = [each for each in found if each[0] is not kind]
    return [(kind, Recognition(recognition.rank, reason)), *others]


def published_configs() -> dict[str, Mapping[str, Any]]:
    """`config.json` of the models that the families' authors published, by name."""
    configs: dict[str, Mapping[str, Any]] = {}
    for family in FAMILIES.values():
        configs |= family.published
    return configs


def trained_readout(manifest: Manifest, direction: str) -> ReadOut:
    """The read-out that a loss trains along `direction`, `sft` or `cl`.

    The two are equations 1 and 2 of the paper. Raises `CheckpointUnusable` for a family that is
    served and not trained here.
    """
    kind = family_of(manifest)
    if any(isinstance(readout, GeneratedScore) for readout in kind.readouts):
        raise CheckpointUnusable(
            f"{manifest.name}: models of the family {kind.name} write their score as text: train"
            " them by the method sft-generated or grpo (docs/training-erank.md)."
        )
    if len(kind.readouts) != 2:
        raise CheckpointUnusable(
            f"{manifest.name}: models of the family {kind.name} are served, not trained here."
        )
    supervised, contrastive = kind.readouts
    return supervised if direction == "sft" else contrastive
