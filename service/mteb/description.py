"""The served model as mteb describes models.

Depends on mteb and on the service's own description, not on calls. Invariant: two models whose
scores differ never have the same name, revision and experiment, by which mteb keeps results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mteb.models import ModelMeta

_ORGANISATION = "gmr-rerank"
"""The first part of a name that has none, as mteb's names have two parts."""


def model_meta(
    info: Mapping[str, Any], digest: str, *, name: str | None, experiment: Mapping[str, Any]
) -> ModelMeta:
    """The metadata of a model, whose revision is the 64 hexadecimal digits of its digest.

    `info` is the answer of `GET /info` or of `GET /v1/models/NAME`. `experiment` are the options
    that change scores. Raises `ValueError` for a `name` without an organisation.
    """
    served = str(info.get("model") or info.get("id"))
    named = name or (served if "/" in served else f"{_ORGANISATION}/{served}")
    if "/" not in named:
        raise ValueError(f"mteb's names of models look like organisation/model: {named!r}.")
    return ModelMeta.create_empty(
        overwrites={
            "name": named,
            "revision": digest.removeprefix("sha256:"),
            "model_type": ["cross-encoder"],
            "modalities": _modalities(info),
            "max_tokens": _limits(info).get("max_pair_tokens"),
            "use_instructions": bool(info.get("takes_instruction", True)),
            "framework": ["API"],
            "experiment_kwargs": dict(experiment) or None,
        }
    )


def _modalities(info: Mapping[str, Any]) -> list[str]:
    """The modalities that the model reads on one side or the other."""
    sides: Mapping[str, Any] = info.get("modalities") or {}
    kinds = {kind for side in sides.values() for kind in side}
    return [kind for kind in ("text", "image") if kind in kinds]


def _limits(info: Mapping[str, Any]) -> Mapping[str, Any]:
    limits = info.get("limits")
    return limits if isinstance(limits, Mapping) else {}
