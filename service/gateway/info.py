"""Descriptions of the gateway for clients: its models, and the limits of a request.

Holds shapes alone; access is checked elsewhere. Invariant: a description does not depend on the
caller.
"""

from __future__ import annotations

from importlib.metadata import version

from service.limits import Limits
from service.wire import WorkerInfo

TITLE = "gmr-rerank"


def model_entry(name: str, model: str) -> dict[str, object]:
    """An entry of OpenAI's model list. For an alias, `root` is the model it stands for, as in
    vLLM."""
    return {"id": name, "object": "model", "created": 0, "owned_by": TITLE, "root": model}


def model_info(limits: Limits, model: WorkerInfo) -> dict[str, object]:
    """The answer of `/info` for a model, also under the names that clients of TEI read."""
    images = model.images
    model_limits = {"max_pair_tokens": model.max_pair_tokens}
    if images:
        model_limits |= {
            "image_cell": images.cell,
            "image_min_pixels": images.min_pixels,
            "image_max_pixels": images.max_pixels,
        }

    return {
        "model": model.model,
        "model_digest": model.digest,
        "version": model.version or None,
        "family": model.family,
        "template": model.template,
        "default_instruction": model.default_instruction,
        "reads": ["text", "image"] if images else ["text"],
        "read_out": model.read_out or None,
        "limits": limits.model_dump() | model_limits,
        "versions": {TITLE: version(TITLE), "engine": model.engine},
        "engine": {"dtype": model.dtype, "device": model.device},
        **_tei_info(limits, model),
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
