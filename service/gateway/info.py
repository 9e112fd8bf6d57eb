"""Descriptions of the gateway for clients: its models, and the limits of a request.

Holds shapes alone; access is checked elsewhere. Invariant: a description does not depend on the
caller.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from model_store.cascades.folder import PublishedCascade
from service.gateway.calibrations import described
from service.limits import Limits
from service.wire import ImageRule, SideRule, WorkerInfo

TITLE = "gmr-rerank"

# a model as a worker could describe it, for examples
EXAMPLE = WorkerInfo(
    model="my-reranker",
    digest="sha256:3f2a66bd6f1bd9c7d2a3d7a0b8d3a9f6d1b0c9a8e7f6a5b4c3d2e1f0a9b8c7d6",
    family="gmr",
    template="code",
    default_instruction="Given a web search query, retrieve relevant passages that answer it",
    max_pair_tokens=3200,
    images=ImageRule(28, 3136, 1_003_520),
    engine="vllm 0.33.0, torch 2.11.0",
    dtype="bfloat16",
    device="cuda",
    read_out="yes - no",
    golden_pairs=18,
)


def model_entry(name: str, model: WorkerInfo) -> dict[str, object]:
    """An entry of OpenAI's model list, with the properties by which a client chooses a model.

    For an alias, `root` is the model it stands for, as in vLLM.
    """
    entry: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": TITLE,
        "root": model.model,
    }
    return entry | _properties(model)


def cascade_entry(
    cascade: PublishedCascade, reason: str, may_use: Callable[[str], bool]
) -> dict[str, object]:
    """A cascade with its stages and its evidence, and the reason why it is not served now, if any.

    Of a stage, the name of its model is left out where the caller may not use that model.
    """
    described = cascade.cascade
    stages: list[dict[str, object]] = []
    for stage in described.stages:
        entry = stage.model_dump(exclude_none=True)
        if not may_use(stage.model):
            del entry["model"]
        stages.append(entry)
    return {
        "ready": not reason,
        "reason": reason or None,
        "version": cascade.version,
        "stages": stages,
        "evidence": described.evidence.model_dump(exclude={"cells"}),
    }


def cascade_listing(name: str) -> dict[str, object]:
    """The entry of a cascade that is not served, in OpenAI's model list."""
    return {"id": name, "object": "model", "created": 0, "owned_by": TITLE, "root": name}


def model_info(limits: Limits, model: WorkerInfo) -> dict[str, object]:
    """The answer of `/info` for a model, also under the names that clients of TEI read."""
    return {
        "model": model.model,
        "model_digest": model.digest,
        "version": model.version or None,
        **_properties(model),
        "template": model.template,
        "default_instruction": model.default_instruction,
        "reads": ["text", "image"] if model.images else ["text"],
        "limits": limits.model_dump() | _model_limits(limits, model),
        "versions": {TITLE: version(TITLE), "engine": model.engine},
        "engine": {"dtype": model.dtype, "device": model.device},
        **_tei_info(limits, model),
    }


def _properties(model: WorkerInfo) -> dict[str, object]:
    """The properties by which a client chooses a model, or reads its scores."""
    return {
        "family": model.family,
        "modalities": {
            "query": _modalities(model, model.query_side),
            "document": _modalities(model, model.document_side),
        },
        "read_out": model.read_out or None,
        "transform": model.probability.name,
        "cacheable_side": model.cacheable_side,
        "takes_instruction": model.takes_instruction,
        "golden_pairs": model.golden_pairs,
        "calibrations": described(model),
    }


def _modalities(model: WorkerInfo, side: SideRule) -> list[str]:
    """The kinds of items that a model reads on a side: texts, images, and both in one item."""
    images = model.images is not None and side.max_images != 0
    kinds = {"text": side.texts, "image": images}
    kinds["text+image"] = side.texts and images and side.mixed
    return [kind for kind, is_read in kinds.items() if is_read]


def _model_limits(limits: Limits, model: WorkerInfo) -> dict[str, int]:
    """The limits of a model, beside those of the service."""
    tokens = {"max_pair_tokens": model.max_pair_tokens}
    if model.max_completion_tokens:
        tokens["max_completion_tokens"] = model.max_completion_tokens
    images = model.images
    if images is None:
        return tokens

    most = limits.max_images_per_item
    in_query, in_document = model.query_side.max_images, model.document_side.max_images
    return {
        **tokens,
        "image_cell": images.cell,
        "image_min_pixels": images.min_pixels,
        "image_max_pixels": images.max_pixels,
        "max_query_images": most if in_query is None else min(most, in_query),
        "max_document_images": most if in_document is None else min(most, in_document),
    }


def _tei_info(limits: Limits, model: WorkerInfo) -> dict[str, object]:
    """A model and its limits in the names of TEI's `/info`, by which some clients tell a reranker
    from an embedding model, and size their requests."""
    return {
        "model_id": model.model,
        "model_sha": model.digest,
        "model_dtype": model.dtype,
        "model_type": {"reranker": {"id2label": {}, "label2id": {}}},
        "max_input_length": model.max_pair_tokens,
        "max_client_batch_size": limits.max_documents,
    }
