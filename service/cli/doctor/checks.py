"""Checks of a running service: does it answer, is it ready, what does it serve, does it rank.

Depends on an HTTP client, not on options or the terminal. Invariant: a check changes nothing in the
service, and reads no score from its cache.
"""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from PIL import Image

from service.cli.client.calls import CannotCall, Service
from service.cli.doctor.report import STATUSES, Check, Compared, Status

_QUERY, _DOCUMENTS = "a red circle", ("a blue square", "a red circle")
_COLOURS = ("red", "blue", "white")
_SIDE = 64
"""Pixels of a side of the pictures that are sent to a model that reads no texts on a side."""
_SAME = 1e-3
"""The largest difference of two scores of one pair that a client may not see."""


async def health(client: httpx.AsyncClient) -> list[Check]:
    """The checks that the service answers and is ready; raises `httpx.TransportError` where it
    does not answer at all."""
    checks = []
    for name, path in (("alive", "health/live"), ("ready", "health/ready")):
        response = await client.get(path)
        found = f"{path} answers {response.status_code}"
        checks.append(Check(name, "ok" if response.is_success else "failed", found))
    return checks


async def served_model(
    service: Service, client: httpx.AsyncClient, model: str | None
) -> tuple[list[Check], Mapping[str, Any]]:
    """The model that is served, and its description; `model` must be among the served ones."""
    try:
        info = await service.info()
    except CannotCall as error:
        return [Check("model", "failed", str(error))], {}

    engine, versions = _mapping(info.get("engine")), _mapping(info.get("versions"))
    name = str(info.get("model"))
    described = (
        f"{name}, family {info.get('family')}, {versions.get('engine')},"
        f" {engine.get('dtype')} on {engine.get('device')}"
    )
    checks = [
        Check("model", "ok", described),
        Check("digest", "ok", str(info.get("model_digest"))),
        _golden_pairs(info),
    ]
    if model is not None and model != name:
        response = await client.get(f"v1/models/{model}")
        status: Status = "ok" if response.is_success else "failed"
        checks.append(Check("named model", status, f"{model}: {response.status_code}"))
    return checks, info


async def round_trip(service: Service, model: str | None, info: Mapping[str, Any]) -> Check:
    """A small request, twice: it has a finite score for each document, in order, and the same one
    both times."""
    body = {
        "query": _item(info, "query", _QUERY, _COLOURS[0]),
        "documents": [
            _item(info, "document", text, colour)
            for text, colour in zip(_DOCUMENTS, _COLOURS[1:], strict=True)
        ],
        "cache": "bypass",
    }
    if model is not None:
        body["model"] = model

    begin = time.perf_counter()
    try:
        first = await service.rerank(body)
        milliseconds = (time.perf_counter() - begin) * 1000
        second = await service.rerank(body)
    except CannotCall as error:
        return Check("round trip", "failed", str(error))

    fault = _fault(_logits(first), _logits(second))
    if fault:
        return Check("round trip", "failed", fault)
    return Check("round trip", "ok", f"2 documents in {milliseconds:.0f} ms, the same twice")


def golden_set(name: str, pairs: Sequence[Compared]) -> Check:
    """The result of a golden set: failed where a pair is off, or where none could be compared."""
    own = [pair for pair in pairs if pair.golden_set == name]
    counts = {status: sum(pair.status == status for pair in own) for status in STATUSES}
    found = f"{counts['ok']} within what is allowed, {counts['failed']} off"
    if counts["skipped"]:
        found += f", {counts['skipped']} skipped"
    failed = counts["failed"] or not counts["ok"]
    return Check(f"golden set {name}", "failed" if failed else "ok", found)


def _fault(first: Sequence[float], second: Sequence[float]) -> str:
    """The fault of the logits of two answers to one request of two documents; empty without
    one."""
    if len(first) != 2 or not all(map(math.isfinite, first)):
        return "an answer does not have a finite logit for each document"
    if first[0] < first[1]:
        return "the results are not in the order of their logits"
    if len(second) != 2 or max(abs(a - b) for a, b in zip(first, second, strict=True)) > _SAME:
        return "the same request has other scores the second time"
    return ""


def _logits(answer: Mapping[str, Any]) -> list[float]:
    logits = []
    for result in answer["results"]:
        value = result.get("logit") if isinstance(result, Mapping) else None
        logits.append(float(value) if isinstance(value, int | float) else math.nan)
    return logits


def _item(info: Mapping[str, Any], side: str, text: str, colour: str) -> str | dict[str, str]:
    """A text; a picture where the model reads no texts on that side."""
    modalities = _mapping(info.get("modalities")).get(side)
    if not isinstance(modalities, list) or "text" in modalities:
        return text

    encoded = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), colour).save(encoded, "PNG")
    return {"image": base64.b64encode(encoded.getvalue()).decode()}


def _golden_pairs(info: Mapping[str, Any]) -> Check:
    """Golden pairs that the worker reproduced at its start; a service of an older version does not
    tell."""
    pairs = info.get("golden_pairs")
    if not isinstance(pairs, int):
        return Check("golden pairs", "skipped", "the service does not tell")
    if pairs == 0:
        return Check(
            "golden pairs",
            "skipped",
            "the model has none, so that nothing checked its scores at the start: `gmr models"
            " inspect --golden` makes some",
        )
    return Check("golden pairs", "ok", f"{pairs} came out as published at the start")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
