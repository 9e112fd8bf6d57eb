"""The start of `gmr worker`: one worker, or several that share a device.

Depends on settings and the server. Invariant: an obstacle that can be found without loading a
model, for any of the workers, ends the command with one sentence before anything is loaded.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import typer

from model_store.commands.console import misuse
from service.cli.serving import check_model, open_server, run, start_log

if TYPE_CHECKING:
    from service.worker.settings import WorkerSettings

_LAST_PORT = 65_535
_SEVERAL_DEVICES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def run_worker(
    host: str, port: int, settings: WorkerSettings, *, insecure: bool, parent: int | None
) -> None:
    """Serve one worker until a signal arrives.

    One of several has a `parent`: it ends where that is killed, leaves it to it to be ended at a
    second signal, and names its process in log lines.
    """
    server = open_server(host, port, insecure=insecure)
    check_model(settings)
    start_log(server, settings, engine=settings.engine, pid=parent is not None)

    from service.interpreter import keep_all
    from service.worker.app import create_worker
    from service.worker.engines.loading import create_engine
    from service.worker.processes import end_without

    served = create_worker(
        settings, create_engine(settings), on_ready=keep_all, on_failure=server.fail
    )
    beat = None if parent is None else partial(end_without, parent)
    run(server, served, settings, "worker", beat=beat)


def run_workers(
    host: str, port: int, settings: WorkerSettings, model: str | None, *, insecure: bool
) -> None:
    """Run several workers that share a device until a signal arrives, on a port each."""
    _refuse_several_devices(settings)
    ports = range(port, port + settings.processes)
    if ports[-1] > _LAST_PORT:
        misuse(f"--port is at most {_LAST_PORT + 1 - settings.processes} for that many workers.")

    servers = [open_server(host, each, insecure=insecure) for each in ports]
    check_model(settings)
    start_log(servers[0], settings, pid=True)
    for server in servers:  # each worker opens its own
        server.stop_listening()

    from service.worker.processes import WorkerProcesses, environment_of_worker

    arguments = [*(["--model", model] if model else []), *(["--insecure"] if insecure else [])]
    workers = WorkerProcesses(
        host,
        ports,
        arguments,
        environment_of_worker(os.environ, settings),
        grace_seconds=settings.grace_seconds,
    )
    code = workers.run()
    if code:
        raise typer.Exit(code)


def _refuse_several_devices(settings: WorkerSettings) -> None:
    """End the command if each of several workers would run on several devices."""
    for name in _SEVERAL_DEVICES:
        if settings.engine_arguments.get(name, "1") != "1":
            misuse(
                f"RERANK_ENGINE_{name.upper()} spreads a worker over several devices:"
                " RERANK_PROCESSES is for several workers on one."
            )
