"""`gmr`: one command for everything. Thin: it reads settings, builds, and runs; each command imports what it needs.

The only file that may import everything.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic_settings import BaseSettings

    from service.gateway.settings import GatewaySettings
    from service.server import Server
    from service.worker.settings import WorkerSettings

    Settings = TypeVar("Settings", bound=BaseSettings)

app = typer.Typer(name="gmr", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback although no key is asked for.")]
Model = Annotated[str | None, typer.Option(help="Registry name, folder, or hub id; default: RERANK_MODEL, or gmr-tiny.")]
_EXAMPLE = {
    "query": "how do I sort a list",
    "documents": ["Close the file.", "Sort the list in ascending order and return None.", "A circle is a round shape."],
}

Urls = Annotated[str | None, typer.Option(help="URLs of the workers, comma-separated; default: RERANK_WORKERS.")]


@app.callback(invoke_without_command=True)
def about(show_version: Annotated[bool, typer.Option("--version", help="Say the version, and stop.")] = False) -> None:
    """Rerank text, images, and both, with pointwise multimodal LLM rerankers.

    Settings come from flags, then from the environment (RERANK_*), then from defaults.
    """
    if show_version:
        typer.echo(version("gmr-rerank"))
        raise typer.Exit


@app.command()
def serve(host: Host = "127.0.0.1", port: Port = 8000, model: Model = None, insecure: Insecure = False) -> None:
    """Run gateway and worker in one process."""
    import httpx

    from service.gateway.app import create_gateway
    from service.worker.app import create_worker

    gateway_settings, worker_settings = _gateway_settings(), _worker_settings(model)
    server = _server(host, port, insecure)
    inner = create_worker(worker_settings, on_ready=lambda: typer.echo(_welcome(server.url)), on_failure=server.give_up)
    transport = httpx.ASGITransport(app=inner)
    client = httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=httpx.Timeout(None))
    _run(server, create_gateway(gateway_settings, [client], beside=inner.router.lifespan_context(inner)), gateway_settings)


@app.command()
def gateway(workers: Urls = None, host: Host = "127.0.0.1", port: Port = 8000, insecure: Insecure = False) -> None:
    """Run a gateway in front of workers."""
    from service.gateway.app import connect, create_gateway

    settings = _gateway_settings(workers)
    if not settings.workers:
        _stop("A gateway needs workers: give --workers, or set RERANK_WORKERS.")
    _run(_server(host, port, insecure), create_gateway(settings, [connect(url) for url in settings.workers]), settings)


@app.command()
def worker(host: Host = "127.0.0.1", port: Port = 8001, model: Model = None, insecure: Insecure = False) -> None:
    """Run a worker for gateways. It never asks for a key: keep it to yourself."""
    from service.worker.app import create_worker

    settings = _worker_settings(model)
    server = _server(host, port, insecure)
    _run(server, create_worker(settings, on_failure=server.give_up), settings)


@app.command()
def bench(
    *,
    model: Annotated[
        str, typer.Option(help="A name, a folder, 'generated' (about 40 M parameters), or '3b', '7b': shapes without weights.")
    ] = "gmr-tiny",
    contenders: Annotated[
        str, typer.Option(help="Who is compared, the reference first: ours, vllm, vllm-tuned, torch, naive, naive-last.")
    ] = "ours,vllm,vllm-tuned,torch,naive",
    workloads: Annotated[str, typer.Option(help="Which of T, Q, L, C, R to run.")] = "T,Q,C,L,R",
    callers: Annotated[str, typer.Option(help="Requests at once; loops are timed with one alone.")] = "1,8",
    samples: Annotated[int, typer.Option(help="Paired samples a workload.", min=1, max=1000)] = 5,
    documents: Annotated[int, typer.Option(help="Documents a request.", min=1, max=1000)] = 100,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; default: float32 for gmr-tiny, else bfloat16.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quantization: Annotated[str | None, typer.Option(help="vLLM's quantisation of all its contenders, such as fp8.")] = None,
    python_vllm: Annotated[
        Path | None, typer.Option(help="Interpreter that has vLLM; default: .venv-vllm/bin/python, or this one.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What --overhead, --soak and --routing run on: vllm or torch.")] = "vllm",
    overhead: Annotated[bool, typer.Option("--overhead", help="Measure what the gateway adds instead.")] = False,
    soak: Annotated[int, typer.Option(help="Send so many requests instead, and look at memory.", min=0, max=10_000_000)] = 0,
    routing: Annotated[bool, typer.Option("--routing", help="Measure splitting and affinity over two workers instead.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes; a chart goes beside it as PNG.")] = None,
) -> None:
    """Compare `/rerank` over HTTP with vLLM's own server, plain and tuned, and with the loops that people write."""
    with _refusing_to_bench():
        from model_store.evaluation.bench.overhead import run_overhead
        from model_store.evaluation.bench.plan import make_plan
        from model_store.evaluation.bench.routing import run_routing
        from model_store.evaluation.bench.run import run_bench
        from model_store.evaluation.bench.soak import run_soak

        _refuse_unknown_settings()
        plan = make_plan(
            model=model,
            contenders=contenders,
            workloads=workloads,
            callers=callers,
            samples=samples,
            documents=documents,
            dtype=dtype,
            device=device,
            engine=engine,
            quantization=quantization,
            python_vllm=python_vllm,
            output=output,
        )
        if routing:
            raise typer.Exit(run_routing(plan))
        raise typer.Exit(run_overhead(plan) if overhead else run_soak(plan, soak) if soak else run_bench(plan))


@contextmanager
def _refusing_to_bench() -> Iterator[None]:
    """What keeps a benchmark from being run ends the process with a sentence, and a program's log where one failed."""
    try:
        from model_store.evaluation.bench.calls import CallFailed
        from model_store.evaluation.bench.plan import BenchRefused
        from model_store.evaluation.bench.programs import ProgramFailed
        from model_store.manifest import CheckpointUnusable

        try:
            yield
        except (BenchRefused, CallFailed, CheckpointUnusable, ProgramFailed) as error:
            _stop(str(error))
    except ModuleNotFoundError as missing:
        if missing.name not in ("matplotlib", "psutil", "torch", "transformers"):
            raise
        _stop(f"gmr bench needs {missing.name}: pip install 'gmr-rerank[dev]'.")


def _run(server: Server, served: FastAPI, settings: GatewaySettings | WorkerSettings) -> None:
    from service.telemetry import log_to_stderr

    log_to_stderr(settings.log_level)
    code = server.run(served)
    if code:
        raise typer.Exit(code)


def _server(host: str, port: int, insecure: bool) -> Server:
    from service.server import Server, is_loopback

    if not insecure and not is_loopback(host):
        _stop(f"Nothing asks for a key here: to listen on {host}, which others can reach, add --insecure.")
    return Server(host, port)


def _gateway_settings(workers: str | None = None) -> GatewaySettings:
    from service.gateway.settings import GatewaySettings

    return _read(GatewaySettings, {} if workers is None else {"workers": workers})


def _worker_settings(model: str | None = None) -> WorkerSettings:
    from service.worker.settings import WorkerSettings

    settings = _read(WorkerSettings, {} if model is None else {"model": model})
    if settings.engine_arguments and settings.engine != "vllm":
        _stop(f"RERANK_ENGINE_{min(settings.engine_arguments).upper()} is an argument of vLLM: it needs RERANK_ENGINE=vllm.")
    return settings


def _read(kind: type[Settings], flags: dict[str, Any]) -> Settings:
    """Settings from flags and environment; a wrong or unknown one ends the process with a sentence."""
    from pydantic import ValidationError

    _refuse_unknown_settings()
    try:
        return kind(**flags)
    except ValidationError as error:
        _stop("\n".join(f"RERANK_{str(each['loc'][0]).upper()}: {each['msg']}." for each in error.errors()))


def _refuse_unknown_settings() -> None:
    """A misspelt setting must not be ignored."""
    from service.gateway.settings import GatewaySettings
    from service.worker.settings import ENGINE_PREFIX, WorkerSettings

    known = {f"RERANK_{name.upper()}" for kind in (GatewaySettings, WorkerSettings) for name in kind.model_fields}
    for name in sorted(set(os.environ)):
        if name.startswith("RERANK_") and not name.startswith(ENGINE_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            _stop(f"There is no setting {name}{f'; did you mean {near[0]}?' if near else '.'}")


def _stop(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)


def _welcome(url: str) -> str:
    return f"""
Ready. Try:

  curl -s {url}/rerank -H 'content-type: application/json' -d '{json.dumps(_EXAMPLE)}'

API page: {url}/docs
"""


if __name__ == "__main__":
    app()
