"""`gmr bench`: reads the options, and runs the measurement that they select."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import check_writable, fail, refusing
from service.cli import bench_options as options
from service.cli.settings import refuse_unknown_settings

if TYPE_CHECKING:
    from service.bench.plan import Plan


def bench(
    *,
    model: options.Model = "gmr-tiny",
    contenders: options.Contenders = None,
    workloads: options.Workloads = "T,Q,C,L,R",
    prompts: options.Prompts = "document,query",
    pool: options.Pool = 1000,
    callers: options.Callers = "1,8",
    samples: options.Samples = 5,
    documents: options.Documents = 100,
    dtype: options.DType = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quantization: options.Quantization = None,
    python_vllm: options.PythonVllm = None,
    engine: options.Engine = "vllm",
    workers: options.Workers = 1,
    overhead: options.Overhead = False,
    observability: options.Observability = False,
    soak: options.Soak = 0,
    routing: options.Routing = False,
    faults: options.Faults = False,
    stored_images: options.StoredImages = False,
    processes: options.Processes = 0,
    priority: options.Priority = False,
    worst_requests: options.WorstRequests = False,
    training: options.Training = False,
    rehearsal: options.Rehearsed = False,
    folder: options.RehearsalFolder = None,
    tokenizer: options.RehearsalTokenizer = None,
    gpu: options.Gpu = False,
    skip: options.Skip = "",
    budget: options.Budget = None,
    shapes: options.Shapes = "",
    output: options.Output = None,
) -> None:
    """Compare `/rerank` with vLLM's server, plain and tuned, and with common scoring loops."""
    with _refusing_to_bench():
        from service.bench.plan import GENERATED, SIZES, BenchRefused, make_plan

        refuse_unknown_settings()
        with refusing(usage=(BenchRefused,)):
            plan = make_plan(
                model=GENERATED if gpu else model,
                contenders="ours" if rehearsal or gpu or training else contenders,
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
                prompts=prompts,
                pool=pool,
                workers=workers,
            )
            others = (soak, overhead, observability, routing, faults, priority, worst_requests)
            if plan.pool and (stored_images or processes or training or any(others)):
                raise BenchRefused("Workloads D and DI are measurements of their own.")
            chosen = _shapes(shapes) if worst_requests else []
            if rehearsal and model not in (GENERATED, *SIZES):
                raise BenchRefused(f"--rehearsal has the sizes {GENERATED}, {', '.join(SIZES)}.")
        uncharted = (worst_requests, priority, rehearsal, gpu, stored_images, processes, plan.pool)
        _check_outputs(output, chart=not (training or any(uncharted)))
        if gpu:
            raise typer.Exit(_run_gpu(plan, skip, budget))
        if rehearsal:
            from service.bench.rehearsal.run import Rehearsal, run_rehearsal

            raise typer.Exit(run_rehearsal(plan, Rehearsal(folder, tokenizer)))
        if training:
            from service.bench.training.run import run_training

            raise typer.Exit(run_training(plan))
        if chosen:
            from service.bench.worst_requests.run import run_worst_requests

            raise typer.Exit(run_worst_requests(plan, chosen))
        if priority or stored_images or processes:
            raise typer.Exit(
                _compare_ways(plan, processes, priority=priority, stored_images=stored_images)
            )
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


def _run_gpu(plan: Plan, skip: str, budget: float | None) -> int:
    """The steps on a GPU; raises `BenchRefused` where there is no file for their results."""
    from service.bench.gpu.run import run_steps
    from service.bench.gpu.steps import chosen_steps, steps_of
    from service.bench.plan import BenchRefused

    with refusing(usage=(BenchRefused,)):
        if plan.output is None:
            raise BenchRefused("--gpu needs --output, which it writes after each step.")
        steps = chosen_steps(steps_of(plan), skip)
    return run_steps(steps, plan.output, budget=budget)


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


def _compare_ways(plan: Plan, processes: int, *, priority: bool, stored_images: bool) -> int:
    """Compare two ways of serving the same requests, and return the exit code."""
    if priority:
        from service.bench.priority.run import run_priority

        return run_priority(plan)
    if stored_images:
        from service.bench.overhead.stored_images import run_stored_images

        return run_stored_images(plan)
    from service.bench.overhead.processes import run_processes

    return run_processes(plan, processes)


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
    return _compare(plan)


def _compare(plan: Plan) -> int:
    """Compare contenders, and return the exit code."""
    if plan.pool:
        from service.bench.reuse.run import run_reuse

        return run_reuse(plan)
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
