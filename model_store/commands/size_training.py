"""`gmr size --train`: the GPU hours and the memory of a LoRA run.

Does not depend on how they are computed. Invariant: the output states what was assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.size_lines import (
    document_size,
    duration,
    gb,
    heading,
    print_json,
    rate_source,
)

if TYPE_CHECKING:
    from model_store.sizing.network import NetworkCost
    from model_store.sizing.plan import Gpu
    from model_store.sizing.training import Assumptions, Run, TrainingCost

DOCUMENTS = 17
"""Documents of a row: the paper's one positive and 16 negatives."""

Train = Annotated[bool, typer.Option("--train", help="Plan a run of `gmr train` instead.")]
Rows = Annotated[int, typer.Option(help="Rows of --train.", min=1, max=10**9)]
Epochs = Annotated[float, typer.Option(help="Epochs of --train.", min=0.001, max=1000)]
Rank = Annotated[int, typer.Option(help="LoRA rank of --train.", min=1, max=1024)]
BatchTokens = Annotated[int, typer.Option(help="batch.tokens of --train.", min=64, max=2**24)]
Checkpointing = Annotated[
    bool,
    typer.Option("--checkpointing/--no-checkpointing", help="batch.checkpointing of --train."),
]
SharedPrefix = Annotated[
    bool,
    typer.Option(
        "--shared-prefix", help="Of --train: a group's instruction and query are computed once."
    ),
]
Fsdp = Annotated[
    bool, typer.Option("--fsdp", help="Of --train: the GPUs split the weights among them.")
]


@dataclass(frozen=True, slots=True)
class Planned:
    """The options of a plan beside those of the run."""

    gpus: int
    efficiency: float | None
    """None: the assumption of `sizing.training`."""
    measured: float | None
    price: float | None
    as_json: bool


def print_training(network: NetworkCost, gpu: Gpu, run: Run, asked: Planned) -> None:
    """Print the plan of a run."""
    from model_store.sizing.training import Assumptions, training_cost

    assumed = Assumptions(efficiency=asked.efficiency or Assumptions.efficiency)
    cost = training_cost(
        network,
        gpu,
        run,
        assumed,
        gpus=asked.gpus,
        measured=asked.measured,
        price=asked.price,
    )
    if asked.as_json:
        print_json(network, gpu, run=run, assumed=assumed, cost=cost)
        return
    for line in _lines(network, gpu, run, assumed, asked, cost):
        typer.echo(line)


def _lines(
    network: NetworkCost,
    gpu: Gpu,
    run: Run,
    assumed: Assumptions,
    asked: Planned,
    cost: TrainingCost,
) -> list[str]:
    """The plan as text."""
    source = rate_source(gpu, assumed.efficiency, measured=asked.measured is not None)
    document = document_size(run.document_tokens, run.image_tokens)
    shared = ", computed once a row" if run.shared_prefix else ""
    on = f"{asked.gpus} GPU" + ("s" if asked.gpus > 1 else "")
    lines = [
        (
            f"{heading(network, gpu)}; LoRA of rank {run.rank}:"
            f" {cost.adapter_parameters / 1e6:.1f} M parameters"
        ),
        (
            f"rows       {run.rows:,} of {run.documents} documents ({document}) after"
            f" {run.query_tokens} tokens{shared}; epochs: {run.epochs:g}"
        ),
        f"work       {cost.pairs:,} pairs, {_amount(cost.tokens)} tokens",
        (
            f"time       {duration(cost.gpu_hours)} of a GPU ({source}),"
            f" {duration(cost.hours)} on {on};"
            f" {cost.pairs_per_second:,.1f} pairs/s a GPU"
        ),
        *_memory_lines(gpu, run, cost),
    ]
    if cost.price is not None:
        lines.append(
            f"cost       {cost.price:,.2f} for {duration(cost.gpu_hours)} of a GPU at"
            f" {asked.price:,.2f} an hour"
        )
    return lines


def _memory_lines(gpu: Gpu, run: Run, cost: TrainingCost) -> list[str]:
    """The memory of a GPU by part, and the largest batch."""
    memory = cost.memory
    kept = "with checkpointing" if run.checkpointing else "without checkpointing"
    lines = [
        (
            f"memory     {gb(memory.total)} of {gpu.memory} GB: {gb(memory.weights)} weights,"
            f" {gb(memory.adapter)} LoRA with gradients and moments, {gb(memory.activations)}"
            f" activations of {run.batch_tokens:,} tokens {kept}, {gb(memory.reserve)} reserve"
        )
    ]
    if not memory.largest_batch_tokens:
        return [*lines, "batch      none: the weights do not fit; take a larger GPU, or --fsdp"]

    verdict = "" if cost.fits else "it does not fit; "
    twice = ", in several batches, so that it is read twice" if run.passes > 1 else ""
    return [
        *lines,
        (
            f"batch      {verdict}batch.tokens may be at most {memory.largest_batch_tokens:,};"
            f" a row has {run.group_tokens:,} tokens{twice}"
        ),
    ]


def _amount(count: int) -> str:
    return f"{count / 1e9:,.1f} B" if count >= 1e9 else f"{count / 1e6:,.1f} M"
