"""A golden set against a running service, over `POST /rerank`.

Depends on a set and a service, not on the terminal. Invariant: every pair of the set has a result:
within what is allowed, off, or skipped with the reason.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.goldens.golden_set import GoldenPart, GoldenSet, PublishedPair
from service.cli.client.calls import CannotCall, Service
from service.cli.doctor.report import Compared, Status

ROUNDING = {"float32": 0.0, "float16": 0.05, "bfloat16": 0.25}
"""Added to a pair's tolerance for a served dtype: bf16 rounds a logit of 4 in steps of 0.03, and
the errors of the layers add up."""
_MAX_PICTURE_BYTES = 64 * 2**20
_SHOWN_CHARACTERS = 40


class PictureMissing(Exception):
    """A picture that is not here; the text says which, and where it is."""


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A golden set under its name, with the folder of its pictures, where there is one."""

    name: str
    pairs: GoldenSet
    pictures: Path | None


async def compare(
    service: Service, known: NamedSet, model: str | None, dtype: str
) -> list[Compared]:
    """A result for each pair of a set."""
    compared = []
    for pair in known.pairs.pairs:
        compared.append(await _compare_pair(service, known, pair, model, dtype))
    return compared


async def _compare_pair(
    service: Service, known: NamedSet, pair: PublishedPair, model: str | None, dtype: str
) -> Compared:
    allowed = pair.tolerance + ROUNDING.get(dtype, max(ROUNDING.values()))
    logit, reason = None, pair.source
    status: Status = "failed"
    try:
        logit = await _logit(service, known, pair, model)
        status = "ok" if abs(logit - pair.logit) <= allowed else "failed"
    except PictureMissing as missing:
        status, reason = "skipped", str(missing)
    except CannotCall as error:
        reason = str(error)
    return Compared(known.name, _title(pair), status, pair.logit, logit, allowed, reason)


async def _logit(
    service: Service, known: NamedSet, pair: PublishedPair, model: str | None
) -> float:
    """The service's raw score of a pair; raises `PictureMissing` and `CannotCall`."""
    body: dict[str, Any] = {
        "query": _item(known, pair.query),
        "documents": [_item(known, pair.document)],
        "cache": "bypass",
        "truncate": "none",
    }
    if pair.instruction:
        body["instruction"] = pair.instruction
    if model is not None:
        body["model"] = model

    answer = await service.rerank(body)
    try:
        return float(answer["results"][0]["logit"])
    except (LookupError, TypeError, ValueError):
        raise CannotCall(f"{service.url} gives results without a logit.") from None


def _item(known: NamedSet, parts: tuple[GoldenPart, ...]) -> dict[str, Any]:
    return {"content": list(_content(known, parts))}


def _content(known: NamedSet, parts: tuple[GoldenPart, ...]) -> Iterator[Mapping[str, Any]]:
    """A side as parts of vLLM's form, which keeps their order."""
    for part in parts:
        if part.picture is None:
            yield {"type": "text", "text": part.text}
        else:
            url = f"data:image/*;base64,{_picture(known, part.picture)}"
            yield {"type": "image_url", "image_url": {"url": url}}


def _picture(known: NamedSet, name: str) -> str:
    """A picture in base64; raises `PictureMissing`."""
    address = known.pairs.pictures.get(name, "")
    if known.pictures is None:
        raise PictureMissing(f"give --pictures a folder with {name} ({address})")
    try:
        with (known.pictures / name).open("rb") as file:
            content = file.read(_MAX_PICTURE_BYTES + 1)
    except OSError as error:
        where = f" ({address})" if address else ""
        raise PictureMissing(f"{name} cannot be read ({error.strerror}){where}") from None
    if len(content) > _MAX_PICTURE_BYTES:
        raise PictureMissing(f"{name} is larger than {_MAX_PICTURE_BYTES} bytes")
    return base64.b64encode(content).decode()


def _title(pair: PublishedPair) -> str:
    """A pair by the beginning of its sides, for people."""
    return " / ".join(map(_beginning, (pair.query, pair.document)))


def _beginning(parts: tuple[GoldenPart, ...]) -> str:
    text = " + ".join(part.text or f"[{part.picture}]" for part in parts)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
