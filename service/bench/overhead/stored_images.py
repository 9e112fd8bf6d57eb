"""`gmr bench --stored-images`: large pictures named by digests, against base64 in each request.

Depends on the public API and on the system's account of processor time, which wall time on a busy
machine does not change. Invariant: all ways rank the same pictures for the same query in turns,
after each was scored once; scores are then cached, and the difference is what pictures cost to
travel, to be read and to be checked.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from rich.console import Console

from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.results import write_report
from service.bench.service import RunningService, start_service

_SIDE = 600
_QUALITY = 97
"""A picture of noise of this size and quality has about a megabyte, and few tokens."""
_PART_BYTES = 8 * 2**20
"""Bytes of pictures that are put by one call, as the clients do."""
_LATER = 10
"""Later requests of a round: the system counts processor time in hundredths of a second."""
_SETTINGS = {
    "RERANK_MAX_BODY_BYTES": str(512 * 2**20),
    "RERANK_MAX_BODIES_BYTES": str(2 * 2**30),
    "RERANK_IMAGES_MEMORY_BYTES": str(512 * 2**20),
    "RERANK_REQUEST_DECODE_MS": "600000",
}
"""Room for the base64 of all pictures, which the limits of a service do not have."""
_QUERY = "a page of noise"


def run_stored_images(plan: Plan) -> int:
    """Measure, print and write; the exit code is always 0. Raises as `run_bench` does."""
    pictures = [noise_jpeg(number) for number in range(plan.documents)]
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder,
        ExitStack() as stack,
    ):
        checkpoint = make_checkpoint(plan, Path(folder))
        service = start_service(plan, checkpoint, plan.engine, Path(folder), stack, **_SETTINGS)
        ways = _measure(service, pictures, plan.samples)

    report = {
        **describe(plan),
        "model": plan.model,
        "pictures": len(pictures),
        "picture_bytes": sum(map(len, pictures)),
        "samples": plan.samples,
        "ways": ways,
    }
    Console().print(_sentence(report), soft_wrap=True)
    if plan.output:
        write_report(report, plan.output)
    return 0


def noise_jpeg(seed: int) -> bytes:
    """A JPEG of noise of about a megabyte, the same for a seed."""
    pixels = random.Random(seed).randbytes(_SIDE * _SIDE * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (_SIDE, _SIDE), pixels).save(
        file, "JPEG", quality=_QUALITY, subsampling=0
    )
    return file.getvalue()


def _measure(
    service: RunningService, pictures: Sequence[bytes], samples: int
) -> dict[str, dict[str, Any]]:
    """Bytes that are sent, and seconds of the gateway's processor and of the clock, of a request in
    each way: medians of `samples`, in turns."""
    encoded = _body([base64.b64encode(picture).decode() for picture in pictures])
    digests = [f"sha256:{hashlib.sha256(picture).hexdigest()}" for picture in pictures]
    named = _body(digests)
    asked = json.dumps({"digests": digests}).encode()
    parts = _parts(pictures)

    def first() -> int:
        sent = _post(service, "/v1/images/missing", asked)
        for content, content_type in parts:
            answer = httpx.put(
                f"{service.url}/v1/images",
                content=content,
                headers={"content-type": content_type},
                timeout=calls.ANSWER_SECONDS,
            )
            answer.raise_for_status()
            sent += len(content)
        return sent + _post(service, "/rerank", named)

    ways: dict[str, tuple[int, Callable[[], int]]] = {
        "base64": (1, lambda: _post(service, "/rerank", encoded)),
        "first": (1, first),
        "later": (_LATER, lambda: _post(service, "/rerank", named)),
    }
    _post(service, "/rerank", encoded)  # every picture is scored once
    first()

    found: dict[str, list[tuple[int, float, float]]] = {name: [] for name in ways}
    names = list(ways)
    for sample in range(samples):
        start = sample % len(names)
        for name in (*names[start:], *names[:start]):
            times, ask = ways[name]
            before, began = _cpu_seconds(service), time.perf_counter()
            sent = [ask() for _ in range(times)]
            wall = (time.perf_counter() - began) / times
            found[name].append((sent[0], (_cpu_seconds(service) - before) / times, wall))

    return {
        name: {
            "bytes": rounds[0][0],
            "gateway_cpu_s": statistics.median(cpu for _, cpu, _ in rounds),
            "seconds": statistics.median(wall for _, _, wall in rounds),
            "rounds": rounds,
        }
        for name, rounds in found.items()
    }


def _body(images: Sequence[str]) -> bytes:
    documents = [{"image": image} for image in images]
    return json.dumps({"query": _QUERY, "documents": documents}).encode()


def _parts(pictures: Sequence[bytes]) -> list[tuple[bytes, str]]:
    """Multipart bodies of the pictures, each with its content type."""
    groups: list[list[bytes]] = [[]]
    for picture in pictures:
        if groups[-1] and sum(map(len, groups[-1])) + len(picture) > _PART_BYTES:
            groups.append([])
        groups[-1].append(picture)

    parts: list[tuple[bytes, str]] = []
    for group in groups:
        files = [("images", picture) for picture in group]
        form = httpx.Request("PUT", "http://service", files=files)
        parts.append((form.read(), form.headers["content-type"]))
    return parts


def _post(service: RunningService, path: str, body: bytes) -> int:
    """Send a request; returns its size. Raises `CallFailed`."""
    calls.post(service.url, path, body)
    return len(body)


def _cpu_seconds(service: RunningService) -> float:
    return sum(service.gateway.cpu_seconds().values())


def _sentence(report: dict[str, Any]) -> str:
    ways = report["ways"]
    encoded = ways["base64"]
    lines = [f"{report['pictures']} pictures of {report['picture_bytes'] / 1e6:.1f} MB together:"]
    for name, found in ways.items():
        lines.append(
            f"  {name:7} {found['bytes'] / 1e6:8.3f} MB sent"
            f" ({found['bytes'] / encoded['bytes']:.1%} of base64),"
            f" {found['gateway_cpu_s'] * 1000:7.1f} ms of the gateway's processor"
            f" ({found['gateway_cpu_s'] / encoded['gateway_cpu_s']:.1%}),"
            f" {found['seconds']:.2f} s"
        )
    return "\n".join(lines)
