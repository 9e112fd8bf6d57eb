"""`gmr bench`: options to a plan, and the plan to whoever carries it out."""

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
            "A name, a folder, 'generated' (about 40 M parameters), or '3b', '7b': shapes without"
            " weights."
        )
    ),
]
Contenders = Annotated[
    str,
    typer.Option(
        help=(
            "Who is compared, the reference first: ours, vllm, vllm-tuned, torch, naive,"
            " naive-last."
        )
    ),
]
PythonVllm = Annotated[
    Path | None,
    typer.Option(help="Interpreter that has vLLM; default: .venv-vllm/bin/python, or this one."),
]
WorstRequests = Annotated[
    bool,
    typer.Option(
        "--worst-requests", help="Send the dearest legal requests instead, one of each shape."
    ),
]


def bench(
    *,
    model: Model = "gmr-tiny",
    contenders: Contenders = "ours,vllm,vllm-tuned,torch,naive",
    workloads: Annotated[str, typer.Option(help="Which of T, Q, L, C, R to run.")] = "T,Q,C,L,R",
    callers: Annotated[
        str, typer.Option(help="Requests at once; loops are timed with one alone.")
    ] = "1,8",
    samples: Annotated[int, typer.Option(help="Paired samples a workload.", min=1, max=1000)] = 5,
    documents: Annotated[int, typer.Option(help="Documents a request.", min=1, max=1000)] = 100,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or bfloat16; default: float32 for gmr-tiny, else bfloat16."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quantization: Annotated[
        str | None, typer.Option(help="vLLM's quantisation of all its contenders, such as fp8.")
    ] = None,
    python_vllm: PythonVllm = None,
    engine: Annotated[
        str, typer.Option(help="What all but the comparison run on: vllm or torch.")
    ] = "vllm",
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Measure what the gateway adds instead.")
    ] = False,
    observability: Annotated[
        bool, typer.Option("--observability", help="Measure what metrics, logs, traces cost.")
    ] = False,
    soak: Annotated[
        int,
        typer.Option(
            help="Send so many requests instead, and look at memory.", min=0, max=10_000_000
        ),
    ] = 0,
    routing: Annotated[
        bool,
        typer.Option("--routing", help="Measure splitting and affinity over two workers instead."),
    ] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help="Harm workers and Redis instead, and see who notices.")
    ] = False,
    worst_requests: WorstRequests = False,
    shapes: Annotated[
        str,
        typer.Option(help="Which shapes --worst-requests sends, comma-separated; default: all."),
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Where the JSON goes; a chart goes beside it as PNG.")
    ] = None,
) -> None:
    """Compare `/rerank` with vLLM's own server, plain and tuned, and with loops people write."""
    with _refusing_to_bench():
        from service.bench.plan import BenchRefused, make_plan

        refuse_unknown_settings()
        with refusing(usage=(BenchRefused,)):
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
            chosen = _shapes(shapes) if worst_requests else []
        _check_outputs(output, chart=not worst_requests)
        if chosen:
            from service.bench.worst_requests.run import run_worst_requests

            raise typer.Exit(run_worst_requests(plan, chosen))
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
    """The shapes that were named, or all."""
    from service.bench.worst_requests.run import chosen_shapes

    return chosen_shapes(names)


def _check_outputs(output: Path | None, *, chart: bool) -> None:
    """End the command where the files that it will write cannot be written."""
    if output is None:
        return
    check_writable(output)
    if chart:
        check_writable(output.with_suffix(".png"))


def _run(
    plan: Plan, soak: int, *, overhead: bool, observability: bool, routing: bool, faults: bool
) -> int:
    """What was asked for; gives the exit code."""
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
    """What keeps a benchmark from being run ends the process with a sentence, and a program's log
    where one failed."""
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
