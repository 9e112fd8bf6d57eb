"""Logits of golden pairs by sentence-transformers, which reads nothing but the published folder.

Depends on sentence-transformers and a folder, not on prompts, manifests or read-outs. Invariant:
pairs are given as its users give them, one a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sentence_transformers import CrossEncoder

from model_store.golden import GoldenPair, Side
from model_store.training.publish.pairs import PublishRefused, has_pictures_on_both_sides

_LAST_CHARS = 500


def predicted_logits(
    folder: Path, pairs: Sequence[GoldenPair], *, device: str, document_first: bool = False
) -> list[float]:
    """The raw score of each pair in fp32; `document_first` where prompts begin with the document.
    Raises `PublishRefused` where the folder cannot be read."""
    try:
        model = open_cross_encoder(folder, device)
        return [logit_of(model, pair, document_first=document_first) for pair in pairs]
    except Exception as error:  # sentence-transformers and transformers raise many kinds
        reason = " ".join(str(error).split())[:_LAST_CHARS]
        raise PublishRefused(
            f"sentence-transformers cannot read the folder ({type(error).__name__}: {reason})."
        ) from None


def open_cross_encoder(folder: Path, device: str) -> CrossEncoder:
    """The folder as sentence-transformers reads it, in fp32."""
    return CrossEncoder(
        str(folder), device=device, local_files_only=True, model_kwargs={"dtype": "float32"}
    )


def pair_of(pair: GoldenPair, *, document_first: bool = False) -> Any:
    """A pair as `CrossEncoder.predict` takes it: a query and a document, or chat messages.

    It is messages where a side has several texts or several pictures. Pictures are read in the
    order of messages: where the prompt begins with the document and both sides have one, the
    document's message is the first.
    """
    sides = [_parts(pair.query), _parts(pair.document)]
    swapped = document_first and has_pictures_on_both_sides(pair)
    if not swapped and all(len({kind for kind, _ in parts}) == len(parts) for parts in sides):
        return [_input(parts) for parts in sides]

    roles = list(zip(("query", "document"), sides, strict=True))
    messages = []
    for role, parts in reversed(roles) if swapped else roles:
        content = [{"type": kind, kind: part} for kind, part in parts]
        messages.append({"role": role, "content": content})
    return messages


def logit_of(model: CrossEncoder, pair: GoldenPair, *, document_first: bool = False) -> float:
    """The raw score of a pair; without an instruction it has the folder's own prompt."""
    (logit,) = model.predict(
        [pair_of(pair, document_first=document_first)],
        prompt=pair.instruction or None,
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )
    return float(logit)


def _parts(side: Side) -> list[tuple[str, str | Image.Image]]:
    """The parts of a side with their modalities."""
    return [
        ("text", part) if isinstance(part, str) else ("image", Image.fromarray(part))
        for part in side
    ]


def _input(parts: Sequence[tuple[str, str | Image.Image]]) -> Any:
    if len(parts) == 1:
        return parts[0][1]
    return dict(parts) or ""
