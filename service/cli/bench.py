"""`gmr bench`: reads the options, and runs the measurement that they select."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import check_writable, fail, refusing
from service.cli.settings import refuse_unknown_settings

if TYPE_CHECKING:
    from service.bench.plan import Plan

Model = Annotated[
    str,
    typer.Option(
        help=(
            "Name or folder of a model, 'generated' (random weights, about 40 M parameters), or"
            " '3b', '7b' (real shapes, no weights)."
        )
    ),
]
Contenders = Annotated[
    str,
    typer.Option(
        help=(
            "Servers and loops to compare, comma-separated, the reference first: ours, vllm,"
            " vllm-tuned, torch, naive, naive-last."
        )
    ),
]
PythonVllm = Annotated[
    Path | None,
    typer.Option(
        help="Python interpreter with vLLM; default: .venv-vllm/bin/python, or the current one."
    ),
]
WorstRequests = Annotated[
    bool,
    typer.Option(
        "--worst-requests",
        help="Instead: send the most expensive requests that the limits allow, one of each shape.",
    ),
]
Rehearsed = Annotated[
    bool,
    typer.Option(
        "--rehearsal",
        help=(
            "Instead: make a checkpoint of a size (generated, 3b or 7b) with random weights,"
            " publish it, serve it, and measure its start by part."
        ),
    ),
]
RehearsalFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for --rehearsal, which is kept; default: one that is removed."),
]
RehearsalTokenizer = Annotated[
    Path | None,
    typer.Option(help="tokenizer.json for --rehearsal, such as Qwen's; default: gmr-tiny's."),
]


def bench(
    *,
    model: Model = "gmr-tiny",
    contenders: Contenders = "ours,vllm,vllm-tuned,torch,naive",
    workloads: Annotated[
        str, typer.Option(help="Workloads to run, of T, Q, L, C, R.")
    ] = "T,Q,C,L,R",
    callers: Annotated[
        str, typer.Option(help="Numbers of concurrent callers; loops are measured with 1.")
    ] = "1,8",
    samples: Annotated[int, typer.Option(help="Paired samples per workload.", min=1, max=1000)] = 5,
    documents: Annotated[int, typer.Option(help="Documents per request.", min=1, max=1000)] = 100,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or bfloat16; default: float32 for gmr-tiny, else bfloat16."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quantization: Annotated[
        str | None,
        typer.Option(help="vLLM's quantisation, such as fp8, for every contender with vLLM."),
    ] = None,
    python_vllm: PythonVllm = None,
    engine: Annotated[
        str, typer.Option(help="Engine of every measurement except the comparison: vllm or torch.")
    ] = "vllm",
    overhead: Annotated[
        bool,
        typer.Option(
            "--overhead", help="Instead: measure the time that the gateway adds to a call."
        ),
    ] = False,
    observability: Annotated[
        bool,
        typer.Option(
            "--observability", help="Instead: measure the cost of metrics, logs and traces."
        ),
    ] = False,
    soak: Annotated[
        int,
        typer.Option(
            help="Instead: send this many requests, and measure the growth of memory.",
            min=0,
            max=10_000_000,
        ),
    ] = 0,
    routing: Annotated[
        bool,
        typer.Option("--routing", help="Instead: measure splitting and affinity with two workers."),
    ] = False,
    faults: Annotated[
        bool,
        typer.Option(
            "--faults", help="Instead: make workers and Redis fail, and measure what callers see."
        ),
    ] = False,
    priority: Annotated[
        bool,
        typer.Option(
            "--priority",
            help="Instead: measure requests alone and beside a stream, which is to wait for them.",
        ),
    ] = False,
    worst_requests: WorstRequests = False,
    rehearsal: Rehearsed = False,
    folder: RehearsalFolder = None,
    tokenizer: RehearsalTokenizer = None,
    shapes: Annotated[
        str,
        typer.Option(help="Shapes for --worst-requests, comma-separated; default: all."),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(help="JSON file for the results; a chart is written beside it (PNG)."),
    ] = None,
) -> None:
    """Compare `/rerank` with vLLM's server, plain and tuned, and with common scoring loops."""
    with _refusing_to_bench():
        from service.bench.plan import GENERATED, SIZES, BenchRefused, make_plan

        refuse_unknown_settings()
        with refusing(usage=(BenchRefused,)):
            plan = make_plan(
                model=model,
                contenders="ours" if rehearsal else contenders,
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
            chosen = _shapes(shapes) if worst_requests else []
            if rehearsal and model not in (GENERATED, *SIZES):
                raise BenchRefused(f"--rehearsal has the sizes {GENERATED}, {', '.join(SIZES)}.")
        _check_outputs(output, chart=not (worst_requests or priority or rehearsal))
        if rehearsal:
            from service.bench.rehearsal.run import Rehearsal, run_rehearsal

            raise typer.Exit(run_rehearsal(plan, Rehearsal(folder, tokenizer)))
        if chosen:
            from service.bench.worst_requests.run import run_worst_requests

            raise typer.Exit(run_worst_requests(plan, chosen))
        if priority:
            from service.bench.priority.run import run_priority

            raise typer.Exit(run_priority(plan))
        raise typer.Exit(
            _run(
                plan,
                soak,
                overhead=overhead,
                observability=observability,
                routing=routing,
                faults=faults,
            )
        )


def _shapes(names: str) -> list[str]:
    """The shapes with these names; all if there are none."""
    from service.bench.worst_requests.run import chosen_shapes

    return chosen_shapes(names)


def _check_outputs(output: Path | None, *, chart: bool) -> None:
    """End the command if a file of results cannot be written."""
    if output is None:
        return
    check_writable(output)
    if chart:
        check_writable(output.with_suffix(".png"))


def _run(
    plan: Plan,
    soak: int,
    *,
    overhead: bool,
    observability: bool,
    routing: bool,
    faults: bool,
) -> int:
    """Run the selected measurement, and return the exit code."""
    if overhead:
        from service.bench.overhead.gateway import run_overhead

        return run_overhead(plan)
    if observability:
        from service.bench.overhead.observability import run_observability

        return run_observability(plan)
    if routing:
        from service.bench.routing.run import run_routing

        return run_routing(plan)
    if faults:
        from service.bench.reliability.faults import run_faults

        return run_faults(plan)
    if soak:
        from service.bench.reliability.soak import run_soak

        return run_soak(plan, soak)
    from service.bench.comparison.run import run_bench

    return run_bench(plan)


@contextmanager
def _refusing_to_bench() -> Iterator[None]:
    """End the command with one sentence if the benchmark cannot run, and with the log of a program
    that failed."""
    try:
        from model_store.manifest import CheckpointUnusable
        from service.bench.calls import CallFailed
        from service.bench.plan import BenchRefused
        from service.bench.programs import ProgramFailed

        try:
            yield
        except (BenchRefused, CallFailed, CheckpointUnusable, ProgramFailed) as error:
            fail(str(error))
    except ModuleNotFoundError as missing:
        if missing.name not in ("matplotlib", "psutil", "torch", "transformers"):
            raise
        fail(f"gmr bench needs {missing.name}: pip install 'gmr-rerank[dev]'.")
