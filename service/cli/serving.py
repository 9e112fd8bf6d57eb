"""The start of `gmr serve`, `gmr gateway` and `gmr worker`: checks, the log, the server's run, and
the processes of a gateway.

Depends on settings, the server and the log. Invariant: an obstacle that can be found without
loading a model, such as a taken port, an unknown model or a missing package, ends the command with
one sentence before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from model_store.commands.console import fail, missing_package, misuse
from service.cli.keys import refusing_keys

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.gateway.settings import GatewaySettings
    from service.observability.settings import TracingSettings
    from service.web.server import Server
    from service.worker.settings import WorkerSettings

_EXAMPLE = {
    "query": "how do I sort a list",
    "documents": [
        "Close the file.",
        "Sort the list in ascending order and return None.",
        "A circle is a round shape.",
    ],
}
_FLUSH_SECONDS = 0.8
"""Time to send the last spans; the process is ended one second after its server."""


def open_server(host: str, port: int, *, insecure: bool) -> Server:
    """A server with its port bound; a port that cannot be bound ends the command."""
    from service.interpreter import collect_rarely
    from service.loopback import is_loopback
    from service.web.server import CannotListen, Server

    collect_rarely()
    if not insecure and not is_loopback(host):
        misuse(
            f"No API key is required here, and others can reach {host}: set RERANK_API_KEYS_FILE"
            " (`gmr keys create`; a worker has no keys), or add --insecure."
        )
    try:
        return Server(host, port)
    except CannotListen as refusal:
        fail(str(refusal))


def check_origins(settings: GatewaySettings, *, insecure: bool) -> None:
    """End the command if pages of every origin may call a service without keys: any web page that
    is open in a browser on this network could then use it."""
    from service.web.origins import ANY_ORIGIN

    if ANY_ORIGIN in settings.cors_origins and not insecure:
        misuse(
            f"RERANK_CORS_ORIGINS={ANY_ORIGIN} lets every web page use this service, and no API key"
            " is required here: name the origins, set RERANK_API_KEYS_FILE, or add --insecure."
        )


def check_model(settings: WorkerSettings) -> None:
    """End the command if the settings name a model that cannot exist, or an engine that is not
    installed."""
    from model_store.checkpoint import expect_named
    from model_store.manifest import CheckpointUnusable
    from service.worker.engines.base import CannotLoad
    from service.worker.engines.vllm.installation import supported_version

    try:
        expect_named(settings.model, settings.model_revision)
        if settings.engine == "vllm":
            supported_version()
    except (CheckpointUnusable, CannotLoad) as refusal:
        fail(str(refusal))
    if find_spec("torch") is None:
        fail(missing_package(f"RERANK_ENGINE={settings.engine}", "torch"))


def start_log(
    server: Server,
    settings: GatewaySettings | WorkerSettings,
    *,
    engine: str | None = None,
    pid: bool = False,
) -> None:
    """Configure the log, and write its first lines; each later stage of the start has one, too.

    With `pid`, each line names its process.
    """
    from service.observability.logs import log, log_to_stderr

    log_to_stderr(settings.log_level, pid=pid)
    log("starting", version=version("gmr-rerank"), url=server.url)
    if engine:
        log("loading the engine's libraries", engine=engine)


def in_one_process(
    settings: GatewaySettings,
    for_worker: WorkerSettings,
    *,
    on_ready: Callable[[], None],
    on_failure: Callable[[], None],
) -> FastAPI:
    """A gateway whose worker is in this process, and starts and ends with it.

    The worker calls `on_ready`, or `on_failure` where its model cannot be served. Raises
    `KeysUnusable` where API keys are required and cannot be read, and `CascadesUnusable`.
    """
    import httpx

    from service.gateway.app import create_gateway
    from service.worker.app import create_worker
    from service.worker.engines.loading import create_engine

    embedded = create_worker(
        for_worker, create_engine(for_worker), on_ready=on_ready, on_failure=on_failure
    )
    transport = httpx.ASGITransport(app=embedded)
    client = httpx.AsyncClient(
        transport=transport, base_url="http://worker", timeout=httpx.Timeout(None)
    )
    lifespan = embedded.router.lifespan_context(embedded)
    return create_gateway(settings, [client], beside=lifespan)


@contextmanager
def refusing_cascades() -> Iterator[None]:
    """End the command with one sentence if a folder of RERANK_CASCADES cannot be used."""
    from service.gateway.cascades.catalogue import CascadesUnusable

    try:
        yield
    except CascadesUnusable as error:
        fail(str(error))


def run_gateway(host: str, port: int, settings: GatewaySettings, *, insecure: bool) -> None:
    """Serve a gateway until a signal arrives, in as many processes as the settings ask for."""
    if settings.processes > 1:
        _run_processes(host, port, settings, insecure=insecure)
        return

    server = open_server(host, port, insecure=insecure)
    start_log(server, settings)

    from service.gateway.app import create_gateway
    from service.gateway.fleet.connections import connect

    workers = connect(settings.workers, settings.worker_dns_ms / 1000)
    with refusing_keys(), refusing_cascades():
        served = create_gateway(settings, workers)
    run(server, served, settings, "gateway")


def _run_processes(host: str, port: int, settings: GatewaySettings, *, insecure: bool) -> None:
    """Serve a gateway in several processes, which share their port, metrics, quotas and secret."""
    from service.gateway.admission.shared_buckets import SharedBuckets
    from service.observability.shared_metrics import SharedMetrics
    from service.web.process_group import ProcessGroup

    group = ProcessGroup(settings.processes, grace_seconds=settings.grace_seconds)
    metrics = SharedMetrics(group.pids)  # before anything imports a metric
    buckets = SharedBuckets(settings.processes)
    server = open_server(host, port, insecure=insecure)
    start_log(server, settings, pid=True)

    from service.gateway.app import create_gateway
    from service.gateway.fleet.connections import connect
    from service.gateway.processes import lacks_shared_images, settings_of_process
    from service.observability.metrics import PROCESSES_ENDED

    images = TemporaryDirectory(prefix="gmr-images-") if lacks_shared_images(settings) else None
    own = settings_of_process(settings, Path(images.name) if images else None)

    def serve(number: int, beat: Callable[[], None]) -> int:
        metrics.enter(number)
        buckets.enter_as(number)
        try:
            workers = connect(own.workers, own.worker_dns_ms / 1000)
            with refusing_keys(), refusing_cascades():
                served = create_gateway(own, workers, buckets=buckets)
            run(server, served, own, "gateway", beat=beat)
        except typer.Exit as end:
            return end.exit_code
        return 0

    def forget(number: int) -> None:
        metrics.forget(number)
        buckets.forget(number)
        PROCESSES_ENDED.inc()

    try:
        code = group.run(serve, on_end=forget, stop_listening=server.stop_listening)
    finally:
        metrics.close()
        if images:
            images.cleanup()
    if code:
        raise typer.Exit(code)


def run(
    server: Server,
    served: FastAPI,
    settings: GatewaySettings | WorkerSettings,
    role: str,
    *,
    beat: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal arrives, and end the process with the server's exit code.

    `beat` is for one of several processes: its event loop calls it, and the process that has forked
    it, or this function's caller, ends it.
    """
    from service.interpreter import end
    from service.observability.metrics import BUILD_INFO, PROCESSES
    from service.web.server import CannotListen

    BUILD_INFO.labels(version("gmr-rerank"), role).set(1)
    PROCESSES.set(1)
    with _traced(settings, "gmr-rerank" if role == "serve" else f"gmr-rerank-{role}"):
        try:
            code = server.run(served, settings, beat)
        except CannotListen as refusal:
            fail(str(refusal))
    if beat is None:
        end(code)
    if code:
        raise typer.Exit(code)


def welcome_text(url: str, *, keys: bool, pages: bool) -> str:
    """An example request, and the addresses of the pages where they are served."""
    key = "-H 'authorization: Bearer YOUR-KEY' " if keys else ""
    addresses = f"\nPlayground: {url}/playground\nAPI page: {url}/docs\n" if pages else ""
    return f"""
Ready. Try:

  curl -s {url}/rerank {key}-H 'content-type: application/json' -d '{json.dumps(_EXAMPLE)}'
{addresses}"""


@contextmanager
def _traced(settings: TracingSettings, name: str) -> Iterator[None]:
    """Send traces as those of the service `name`, if an endpoint is configured."""
    if settings.otlp_endpoint is None:
        yield
        return

    from service.observability.tracing import set_tracer

    try:
        from service.observability.otlp import OtlpTracer
    except ModuleNotFoundError as missing:
        if not str(missing.name).startswith("opentelemetry"):
            raise
        fail(missing_package("RERANK_OTLP_ENDPOINT", "opentelemetry"))

    tracer = OtlpTracer(str(settings.otlp_endpoint), settings.trace_sample, name)
    set_tracer(tracer)
    try:
        yield
    finally:
        tracer.close(_FLUSH_SECONDS)
