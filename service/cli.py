"""`gmr`: one command for everything. Thin: it reads settings, builds, and runs; each command imports what it needs.

The only file that may import everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.evaluation import commands as models
from model_store.sizing import commands as sizing
from model_store.training import commands as training
from model_store.training.ablations import commands as ablations
from model_store.training.converters import commands as converters
from model_store.training.negatives import commands as negatives
from model_store.training.publish import commands as publish
from model_store.training.tiny import commands as tiny
from service.cli_bench import bench
from service.cli_keys import keys, refusing_keys
from service.cli_metrics import print_metrics
from service.cli_settings import asks_for_keys, gateway_settings, print_settings, stop, worker_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.gateway.settings import GatewaySettings
    from service.server import Server
    from service.tracing_settings import Tracing
    from service.worker.settings import WorkerSettings

app = typer.Typer(name="gmr", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback although no key is asked for.")]
Model = Annotated[str | None, typer.Option(help="Registry name, folder, or hub id; default: RERANK_MODEL, or gmr-tiny.")]
_EXAMPLE = {
    "query": "how do I sort a list",
    "documents": ["Close the file.", "Sort the list in ascending order and return None.", "A circle is a round shape."],
}

_LAST_SPANS_SECONDS = 0.8
"""Within the second that a process has left when it has served."""

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

    settings, worker_side = gateway_settings(), worker_settings(model)
    server = _server(host, port, insecure or asks_for_keys(settings))
    welcome = _welcome(server.url, keys=asks_for_keys(settings))
    inner = create_worker(worker_side, on_ready=lambda: typer.echo(welcome), on_failure=server.give_up)
    transport = httpx.ASGITransport(app=inner)
    client = httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=httpx.Timeout(None))
    with refusing_keys():
        served = create_gateway(settings, [client], beside=inner.router.lifespan_context(inner))
    _run(server, served, settings, "serve")


@app.command()
def gateway(workers: Urls = None, host: Host = "127.0.0.1", port: Port = 8000, insecure: Insecure = False) -> None:
    """Run a gateway in front of workers."""
    from service.gateway.app import connect, create_gateway

    settings = gateway_settings(workers)
    if not settings.workers:
        stop("A gateway needs workers: give --workers, or set RERANK_WORKERS.")
    server = _server(host, port, insecure or asks_for_keys(settings))
    with refusing_keys():
        served = create_gateway(settings, connect(settings))
    _run(server, served, settings, "gateway")


@app.command()
def worker(host: Host = "127.0.0.1", port: Port = 8001, model: Model = None, insecure: Insecure = False) -> None:
    """Run a worker for gateways. It never asks for a key: keep it to yourself."""
    from service.worker.app import create_worker

    settings = worker_settings(model)
    server = _server(host, port, insecure)
    _run(server, create_worker(settings, on_failure=server.give_up), settings, "worker")


app.add_typer(keys)
app.command("settings")(print_settings)
app.command("metrics")(print_metrics)
for part in (converters, negatives, training, ablations, tiny, publish, models, sizing):
    part.register(app)
app.command()(bench)


def _run(server: Server, served: FastAPI, settings: GatewaySettings | WorkerSettings, role: str) -> None:
    from service.logs import log_to_stderr
    from service.metrics import BUILD

    log_to_stderr(settings.log_level)
    BUILD.labels(version("gmr-rerank"), role).set(1)
    with _traced(settings, "gmr-rerank" if role == "serve" else f"gmr-rerank-{role}"):
        code = server.run(served, settings)
    if code:
        raise typer.Exit(code)


@contextmanager
def _traced(settings: Tracing, name: str) -> Iterator[None]:
    """Have traces sent as those of the service `name`, if there is somewhere to send them."""
    if settings.otlp_endpoint is None:
        yield
        return
    from service.tracing import use

    try:
        from service.otlp import OtlpTracer
    except ModuleNotFoundError as missing:
        if not str(missing.name).startswith("opentelemetry"):
            raise
        stop("RERANK_OTLP_ENDPOINT needs OpenTelemetry: pip install 'gmr-rerank[otel]'.")
    tracer = OtlpTracer(str(settings.otlp_endpoint), settings.trace_sample, name)
    use(tracer)
    try:
        yield
    finally:
        tracer.close(_LAST_SPANS_SECONDS)


def _server(host: str, port: int, insecure: bool) -> Server:
    from service.server import Server, is_loopback

    if not insecure and not is_loopback(host):
        stop(
            f"Nothing asks for a key here: to listen on {host}, which others can reach, set RERANK_API_KEYS_FILE "
            "(`gmr keys create`; a worker has no keys), or add --insecure."
        )
    return Server(host, port)


def _welcome(url: str, *, keys: bool) -> str:
    key = "-H 'authorization: Bearer YOUR-KEY' " if keys else ""
    return f"""
Ready. Try:

  curl -s {url}/rerank {key}-H 'content-type: application/json' -d '{json.dumps(_EXAMPLE)}'

API page: {url}/docs
"""


if __name__ == "__main__":
    app()
