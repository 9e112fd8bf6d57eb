"""`gmr bench --overhead`: what the gateway adds to a worker's call, in time for texts, and in
processor time for pictures.

Knows the public API and the worker's message, nothing of how either works. Invariant: a sample's
two ways are asked for the same documents, in turns, after both have been asked for them once; so
the engine has little to do, and the difference is the gateway.
"""

from __future__ import annotations

import base64
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from rich.console import Console

from model_store.families.family import ImageRules
from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.contenders import Service
from service.bench.comparison.report import write
from service.bench.comparison.vllm_server import model_size
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.starting import start_service
from service.bench.traffic import WARM_UP, requests
from service.bench.workloads import Request

_WORKER_MESSAGE = "application/msgpack"
_ROUNDS = 4
"""Times that a sample's texts are asked about each way: the difference is small beside what an
engine varies by."""


def run_overhead(plan: Plan) -> int:
    """Measure, print and write; the exit code is always 0. Raises as `run_bench` does."""
    console = Console()
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as scratch,
        ExitStack() as stack,
    ):
        checkpoint = make_checkpoint(plan, Path(scratch))
        service = start_service(plan, checkpoint, plan.engine, Path(scratch), stack)
        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        model = msgspec.json.decode(calls.get(service.worker_url, "/info"))[0]["model"]
        samples = range(WARM_UP, plan.samples)
        texts = [
            _texts(service, model, requests("T", plan.documents, 1, sample, tokenizer)[0])
            for sample in samples
        ]
        rules = checkpoint.family.images
        assert rules is not None, "the workload has pictures"
        pictures = [
            _pictures(service, requests("C", plan.documents, 1, sample, tokenizer)[0], rules)
            for sample in samples
        ]
    report = describe(plan) | {
        "model": plan.model,
        "engine": plan.engine,
        "documents": plan.documents,
        "samples": plan.samples,
    }
    report |= _texts_found(list(chain.from_iterable(texts[1:]))) | _pictures_found(
        pictures[1:], plan.documents
    )
    console.print(
        f"The gateway adds {report['added_p50_ms']:.1f} ms to the p50 of a call with"
        f" {plan.documents} texts ({report['gateway_p50_ms']:.1f} ms, {report['worker_p50_ms']:.1f}"
        f" ms without it; median of paired differences: {report['added_paired_ms']:.1f} ms),\nand"
        f" uses {report['cpu_ms_a_picture']:.2f} ms of a processor a picture, of which"
        f" {report['decoding_ms_a_picture']:.2f} ms to decode and resize it.",
        soft_wrap=True,
    )
    if plan.output:
        write(report, plan.output)
    return 0


def _texts(service: Service, model: str, request: Request) -> list[tuple[float, float]]:
    """Seconds through the gateway, and of the worker alone, of each round."""
    through, direct = json.dumps(request.body()).encode(), worker_call(model, request)
    ways: dict[str, Callable[[], bytes]] = {
        "through": lambda: calls.post(service.url, "/rerank", through),
        "direct": lambda: calls.post(service.worker_url, "/score", direct, _WORKER_MESSAGE),
    }
    for ask in ways.values():
        ask()
    rounds = []
    for number in range(_ROUNDS):
        taken = {}
        for name in sorted(ways, reverse=number % 2 == 1):
            start = time.perf_counter()
            ways[name]()
            taken[name] = time.perf_counter() - start
        rounds.append((taken["through"], taken["direct"]))
    return rounds


def _pictures(service: Service, request: Request, rules: ImageRules) -> tuple[float, float]:
    """Processor seconds of the gateway for a request with pictures, and of decoding and resizing
    the same pictures here."""
    body = request.body()
    gateway, asked = service.programs[0], json.dumps(body).encode()
    before = sum(gateway.cpu_seconds().values())
    calls.post(service.url, "/rerank", asked)
    used = sum(gateway.cpu_seconds().values()) - before
    start = time.process_time()
    for item in body["documents"]:
        image = Image.open(io.BytesIO(base64.b64decode(item["image"]))).convert("RGB")
        size = model_size(image.size, rules)
        if size != image.size:
            image.resize(size, Image.Resampling.BICUBIC)
    return used, time.process_time() - start


def worker_call(model: str, request: Request) -> bytes:
    """A request of texts as a gateway would send it to its worker."""
    body = request.body()
    call = {
        "model": model,
        "instruction": body["instruction"],
        "query": [body["query"]],
        "documents": [[document] for document in body["documents"]],
        "images": [],
        "truncate": True,
    }
    return msgspec.msgpack.encode(call)


def _texts_found(taken: list[tuple[float, float]]) -> dict[str, Any]:
    through, direct = ([way * 1000 for way in ways] for ways in zip(*taken, strict=True))
    return {
        "gateway_p50_ms": statistics.median(through),
        "worker_p50_ms": statistics.median(direct),
        "added_p50_ms": statistics.median(through) - statistics.median(direct),
        "added_paired_ms": statistics.median(
            slow - quick for slow, quick in zip(through, direct, strict=True)
        ),
        "gateway_ms": through,
        "worker_ms": direct,
    }


def _pictures_found(taken: list[tuple[float, float]], documents: int) -> dict[str, Any]:
    """Means, since the system counts processor time in hundredths of a second."""
    used, decoding = (
        statistics.mean(seconds) * 1000 / documents for seconds in zip(*taken, strict=True)
    )
    return {
        "cpu_ms_a_picture": used,
        "decoding_ms_a_picture": decoding,
        "beyond_decoding_ms_a_picture": used - decoding,
    }
