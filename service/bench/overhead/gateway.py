"""`gmr bench --overhead`: the gateway's share of a call: time for texts, processor time for
pictures and for cached texts.

Depends on the public API and on the worker's message format, on nothing inside either. Invariant:
both paths of a sample get the same documents in turns, after both had them once; the engine then
has little to do, and the difference is the gateway.
"""

from __future__ import annotations

import base64
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from rich.console import Console

from model_store.checkpoint import Checkpoint
from model_store.families.family import ImageRules
from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.contenders import Service
from service.bench.comparison.starting import start
from service.bench.comparison.vllm_server import model_size
from service.bench.machine import describe
from service.bench.overhead.cached import Measured, cached_cpu
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.results import write_report
from service.bench.service import RunningService, start_service
from service.bench.traffic import WARM_UP, requests
from service.bench.workloads import Request

_WORKER_MESSAGE = "application/msgpack"
_ROUNDS = 4
"""Repetitions of a sample's texts on each path: the difference is small beside an engine's
variance."""


def run_overhead(plan: Plan) -> int:
    """Measure, print and write; the exit code is always 0. Raises as `run_bench` does."""
    texts: list[tuple[float, float]] = []
    pictures: list[tuple[float, float]] = []
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder,
        ExitStack() as stack,
    ):
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        service = start_service(plan, checkpoint, plan.engine, scratch, stack)
        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        model = msgspec.json.decode(calls.get(service.worker_url, "/info"))[0]["model"]

        for sample in range(WARM_UP, plan.samples):
            (request,) = requests("T", plan.documents, 1, sample, tokenizer)
            taken = _time_texts(service, model, request)
            if sample != WARM_UP:
                texts += taken
        rules = checkpoint.family.images
        assert rules is not None, "the workload has pictures"
        for sample in range(WARM_UP, plan.samples):
            (request,) = requests("C", plan.documents, 1, sample, tokenizer)
            used = _time_pictures(service, request, rules)
            if sample != WARM_UP:
                pictures.append(used)
        (request,) = requests("T", plan.documents, 1, plan.samples, tokenizer)
        cached = _time_cached(plan, service, checkpoint, scratch, stack, request)

    report = {
        **describe(plan),
        "model": plan.model,
        "engine": plan.engine,
        "documents": plan.documents,
        "samples": plan.samples,
        **_summarise_texts(texts),
        **_summarise_pictures(pictures, plan.documents),
        "cached": cached,
    }
    Console().print(_sentence(report), soft_wrap=True)
    if plan.output:
        write_report(report, plan.output)
    return 0


def worker_call(model: str, request: Request) -> bytes:
    """A request of texts as a gateway sends it to its worker."""
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


def _time_texts(service: RunningService, model: str, request: Request) -> list[tuple[float, float]]:
    """Seconds of a call through the gateway, and of the call to the worker alone, of each round."""
    public, direct = json.dumps(request.body()).encode(), worker_call(model, request)

    def through_gateway() -> float:
        start = time.perf_counter()
        calls.post(service.url, "/rerank", public)
        return time.perf_counter() - start

    def to_worker() -> float:
        start = time.perf_counter()
        calls.post(service.worker_url, "/score", direct, _WORKER_MESSAGE)
        return time.perf_counter() - start

    through_gateway()
    to_worker()

    rounds = []
    for number in range(_ROUNDS):
        if number % 2:
            through = through_gateway()
            alone = to_worker()
        else:
            alone = to_worker()
            through = through_gateway()
        rounds.append((through, alone))
    return rounds


def _time_pictures(
    service: RunningService, request: Request, rules: ImageRules
) -> tuple[float, float]:
    """Processor seconds of the gateway for a request with pictures, and of decoding and resizing
    the same pictures in this process."""
    body = request.body()

    before = sum(service.gateway.cpu_seconds().values())
    calls.post(service.url, "/rerank", json.dumps(body).encode())
    used = sum(service.gateway.cpu_seconds().values()) - before

    start = time.process_time()
    for item in body["documents"]:
        image = Image.open(io.BytesIO(base64.b64decode(item["image"]))).convert("RGB")
        size = model_size(image.size, rules)
        if size != image.size:
            image.resize(size, Image.Resampling.BICUBIC)
    return used, time.process_time() - start


def _time_cached(
    plan: Plan,
    service: RunningService,
    checkpoint: Checkpoint,
    scratch: Path,
    stack: ExitStack,
    request: Request,
) -> dict[str, dict[str, Any]]:
    """Processor time of a request of cached texts: in this service's gateway, and in a service of
    one process on torch, which is started for it where there are weights."""
    services = {"two processes": Measured(service.gateway, service.url)}
    if not plan.random_weights:
        single = start("torch", plan, checkpoint, scratch, stack)
        assert isinstance(single, Service)
        services["one process"] = Measured(single.programs[0], single.url)
    body = json.dumps(replace(request, cache="use").body()).encode()
    return cached_cpu(services, body, plan.samples)


def _summarise_texts(rounds: Sequence[tuple[float, float]]) -> dict[str, Any]:
    through = [seconds * 1000 for seconds, _ in rounds]
    direct = [seconds * 1000 for _, seconds in rounds]
    differences = [one - other for one, other in zip(through, direct, strict=True)]

    return {
        "gateway_p50_ms": statistics.median(through),
        "worker_p50_ms": statistics.median(direct),
        "added_p50_ms": statistics.median(through) - statistics.median(direct),
        "added_paired_ms": statistics.median(differences),
        "gateway_ms": through,
        "worker_ms": direct,
    }


def _summarise_pictures(used: Sequence[tuple[float, float]], documents: int) -> dict[str, Any]:
    """Means, since the system counts processor time in hundredths of a second."""
    gateway = statistics.mean(seconds for seconds, _ in used) * 1000 / documents
    decoding = statistics.mean(seconds for _, seconds in used) * 1000 / documents
    return {
        "cpu_ms_a_picture": gateway,
        "decoding_ms_a_picture": decoding,
        "beyond_decoding_ms_a_picture": gateway - decoding,
    }


def _sentence(report: dict[str, Any]) -> str:
    return (
        f"The gateway adds {report['added_p50_ms']:.1f} ms to the p50 of a call with"
        f" {report['documents']} texts ({report['gateway_p50_ms']:.1f} ms,"
        f" {report['worker_p50_ms']:.1f} ms without it; median of paired differences:"
        f" {report['added_paired_ms']:.1f} ms),\nand uses {report['cpu_ms_a_picture']:.2f} ms of a"
        f" processor a picture, of which {report['decoding_ms_a_picture']:.2f} ms to decode and"
        f" resize it.\n{_cached_sentence(report)}"
    )


def _cached_sentence(report: dict[str, Any]) -> str:
    costs = []
    for service, found in report["cached"].items():
        costs.append(f"{found['cpu_ms_a_request']:.2f} ms in the service of {service}")
    return (
        f"A request of {report['documents']} cached texts uses {' and '.join(costs)} of a processor"
        " (the gateway's process)."
    )
