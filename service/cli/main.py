"""The `gmr` command: it reads settings, constructs the apps, and runs them.

Does not depend on torch or FastAPI until a command runs: each command imports what it needs.
Invariant: this is the only module that may import every other one.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from model_store.commands import ablate as ablations
from model_store.commands import answers, instructions, models, publish, reports
from model_store.commands import calibrate as calibrations
from model_store.commands import convert as converters
from model_store.commands import evaluate as checkpoints
from model_store.commands import feedback as feedback_rows
from model_store.commands import mine as negatives
from model_store.commands import size as sizing
from model_store.commands import tasks as benchmarks
from model_store.commands import train as training
from model_store.commands.console import Commands, misuse
from model_store.commands.data import data
from service.cli.bench import bench
from service.cli.bulk.command import bulk
from service.cli.doctor.command import doctor
from service.cli.evaluation.command import evaluate_benchmark
from service.cli.evaluation.group import BENCHMARK, evaluations
from service.cli.evaluation.judgements import judgements
from service.cli.feedback import feedback
from service.cli.keys import keys, refusing_keys
from service.cli.metrics import print_metrics
from service.cli.rerank import rerank
from service.cli.serving import (
    check_model,
    check_origins,
    in_one_process,
    open_server,
    refusing_cascades,
    run,
    run_gateway,
    start_log,
    welcome_text,
)
from service.cli.settings import asks_for_keys, gateway_settings, print_settings, worker_settings
from service.cli.workers import run_worker, run_workers
from service.interpreter import keep_all, prepare_spawned

prepare_spawned()  # the processes of an engine import this module first

app = typer.Typer(
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    name="gmr",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]
Processes = Annotated[
    int | None,
    typer.Option(
        help="Processes that serve on the port; default: RERANK_PROCESSES, or 1.", min=1, max=64
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--processes",
        help=(
            "Workers that share the device, on this port and those after it; default:"
            " RERANK_PROCESSES, or 1."
        ),
        min=1,
        max=8,
    ),
]
Parent = Annotated[
    int | None,
    typer.Option(hidden=True, help="Process that starts and ends this one of several workers."),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Allow a public address, and pages of every origin, without API keys."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help=(
            "Name of a shipped model, NAME@production, folder, or hub id; default: RERANK_MODEL, or"
            " gmr-tiny."
        )
    ),
]
Urls = Annotated[
    str | None,
    typer.Option(
        help=(
            "URLs of the workers, comma-separated; dns://host:port stands for every address of the"
            " host; default: RERANK_WORKERS."
        )
    ),
]


@app.callback(invoke_without_command=True)
def about(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """Rerank text, images, and both with pointwise multimodal LLM rerankers.

    Start with `gmr serve`. Settings are read from flags, then from environment variables (RERANK_*,
    listed by `gmr settings`), then from defaults. Exit codes: 0 success, 1 failure, 2 wrong usage,
    130 interrupted.
    """
    if show_version:
        typer.echo(version("gmr-rerank"))
        raise typer.Exit


@app.command()
def serve(
    host: Host = "127.0.0.1", port: Port = 8000, model: Model = None, insecure: Insecure = False
) -> None:
    """Run a gateway and a worker in one process."""
    settings, for_worker = gateway_settings(), worker_settings(model)
    if settings.processes > 1:
        misuse("`gmr serve` is one process: RERANK_PROCESSES is for `gmr gateway`.")
    is_allowed = insecure or asks_for_keys(settings)
    check_origins(settings, insecure=is_allowed)
    server = open_server(host, port, insecure=is_allowed)
    check_model(for_worker)
    start_log(server, settings, engine=for_worker.engine)

    def welcome() -> None:
        keep_all()
        typer.echo(welcome_text(server.url, keys=asks_for_keys(settings), pages=settings.pages))

    with refusing_keys(), refusing_cascades():
        served = in_one_process(settings, for_worker, on_ready=welcome, on_failure=server.fail)
    run(server, served, settings, "serve")


@app.command()
def gateway(
    workers: Urls = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    processes: Processes = None,
    insecure: Insecure = False,
) -> None:
    """Run a gateway, the public HTTP API, in front of workers."""
    settings = gateway_settings(workers, processes)
    if not settings.workers:
        misuse("A gateway needs workers: give --workers, or set RERANK_WORKERS.")
    is_allowed = insecure or asks_for_keys(settings)
    check_origins(settings, insecure=is_allowed)
    run_gateway(host, port, settings, insecure=is_allowed)


@app.command()
def worker(
    host: Host = "127.0.0.1",
    port: Port = 8001,
    model: Model = None,
    processes: Workers = None,
    insecure: Insecure = False,
    parent: Parent = None,
) -> None:
    """Run a worker, which scores for gateways. It has no API keys: keep it off public networks."""
    settings = worker_settings(model, processes)
    if settings.processes > 1:
        run_workers(host, port, settings, model, insecure=insecure)
    else:
        run_worker(host, port, settings, insecure=insecure, parent=parent)


app.command()(rerank)
app.command()(bulk)
app.command()(doctor)
app.command()(feedback)
instructions.register(app)
app.add_typer(keys)
app.command("settings")(print_settings)
app.command("metrics")(print_metrics)
for part in (converters, negatives, training, ablations, publish, calibrations, models, sizing):
    part.register(app)
answers.register(data)
feedback_rows.register(data)
app.command()(bench)
evaluations.command(BENCHMARK)(evaluate_benchmark)
checkpoints.register(evaluations)
benchmarks.register(evaluations)
reports.register(evaluations)
evaluations.command()(judgements)
app.add_typer(evaluations)


if __name__ == "__main__":
    app()
