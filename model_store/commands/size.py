"""`gmr size`: the GPUs, memory and cost of a load.

Does not depend on how they are computed. Invariant: the output states what was assumed.
"""

from __future__ import annotations

from typing import Annotated

import typer

from model_store.commands import size_training as training
from model_store.commands.console import misuse, refusing

_PLANS = {
    "requests": ("load",),
    "documents": ("load", "train"),
    "query_tokens": ("load", "train"),
    "document_tokens": ("load", "train"),
    "image_pixels": ("load", "train"),
    "cached": ("load",),
    "images_seen": ("load", "task"),
    "workers_per_gpu": ("load",),
    "keep_documents": ("load",),
    "top_k": ("task",),
    "first_stage": ("task",),
    "gpus": ("task", "train"),
    "rows": ("train",),
    "epochs": ("train",),
    "rank": ("train",),
    "batch_tokens": ("train",),
    "checkpointing": ("train",),
    "shared_prefix": ("train",),
    "fsdp": ("train",),
}
"""The plans that an option belongs to: of a load, of --task, of --train."""


def register(app: typer.Typer) -> None:
    """Add `gmr size`."""
    app.command()(size)


def size(  # noqa: PLR0917 - each is an option with its own name
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A folder with a config.json, or one of gmr-3b, gmr-7b, qwen3-reranker-0.6b,"
            " qwen3-reranker-4b, qwen3-reranker-8b."
        ),
    ] = "gmr-3b",
    gpu: Annotated[
        str, typer.Option(help="b200, h200, h100, a100, a100-40gb, l40s, l4, a10.")
    ] = "h100",
    requests: Annotated[float, typer.Option(help="Requests per second.", min=0.001, max=1e6)] = 1.0,
    documents: Annotated[int, typer.Option(help="Documents per request.", min=1, max=1000)] = 100,
    query_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens before a document: template, instruction, query.", min=1, max=8192
        ),
    ] = 300,
    document_tokens: Annotated[
        int, typer.Option(help="Tokens of a document's text.", min=1, max=8192)
    ] = 130,
    image_pixels: Annotated[
        int, typer.Option(help="Pixels of a document's image.", min=0, max=2_508_800)
    ] = 0,
    cached: Annotated[
        float, typer.Option(help="Share of the pairs that the score cache has.", min=0, max=0.999)
    ] = 0.0,
    images_seen: Annotated[
        float, typer.Option(help="Share of the images that the engine has cached.", min=0, max=1)
    ] = 0.0,
    efficiency: Annotated[
        float | None,
        typer.Option(
            help="Share of the GPU's bf16 peak that is reached; default: 0.5, and 0.35 of --train.",
            min=0.01,
            max=1,
        ),
    ] = None,
    pairs_per_second: Annotated[
        float | None,
        typer.Option(
            help="Rate of one GPU, as `gmr bench` measured it: replaces the estimate.",
            min=0.001,
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(help="Price of a GPU per hour, in any currency.", min=0, max=1e6),
    ] = None,
    workers_per_gpu: Annotated[
        int, typer.Option(help="Workers that share a GPU.", min=1, max=8)
    ] = 1,
    keep_documents: Annotated[
        int,
        typer.Option(
            help="Documents that KV caches are to keep under new queries, of a model whose"
            " prompts begin with the document.",
            min=0,
            max=10**9,
        ),
    ] = 0,
    task: Annotated[
        str | None,
        typer.Option(
            help="Plan an evaluation instead, of a benchmark as `gmr eval` names it: mrb,"
            " beir:scifact, a folder."
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option(help="Candidates of each query of --task.", min=1, max=1000)
    ] = 100,
    first_stage: Annotated[
        str, typer.Option(help="First stage of --task whose work is added: own, bm25 or gme.")
    ] = "own",
    gpus: Annotated[int, typer.Option(help="GPUs for --task or --train.", min=1, max=10_000)] = 1,
    train: training.Train = False,
    rows: training.Rows = 10_000,
    epochs: training.Epochs = 1.0,
    rank: training.Rank = 16,
    batch_tokens: training.BatchTokens = 65_536,
    checkpointing: training.Checkpointing = True,
    shared_prefix: training.SharedPrefix = False,
    fsdp: training.Fsdp = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate how many GPUs a load needs, how much memory, and what a million pairs cost; or the
    storage, time and cost of an evaluation; or the time and memory of a training run.

    This is arithmetic: measure before you buy."""
    from model_store.commands.size_load import print_load
    from model_store.sizing.network import ImagesNotRead, UnknownNetwork, network_cost
    from model_store.sizing.plan import GPUS, Assumptions, Load, plan

    if gpu not in GPUS:
        misuse(f"--gpu is one of {', '.join(GPUS)}.")
    given = _given(context)
    _check_given(given)

    with refusing(UnknownNetwork, usage=(ImagesNotRead,)):
        network = network_cost(model)
        if task is not None:
            from model_store.commands.size_evaluation import Asked, print_evaluation
            from model_store.evaluation.planning.plan import Machine

            share = efficiency or Assumptions.efficiency
            machine = Machine(network, GPUS[gpu], share, images_seen, pairs_per_second)
            print_evaluation(Asked(task, top_k, first_stage, gpus, price, as_json), machine)
            return
        image_tokens = image_pixels // network.token_pixels if image_pixels else 0

    if train:
        from model_store.sizing.training import Run

        run = Run(
            rows,
            documents if "documents" in given else training.DOCUMENTS,
            query_tokens,
            document_tokens,
            image_tokens,
            epochs,
            rank,
            batch_tokens=batch_tokens,
            checkpointing=checkpointing,
            shared_prefix=shared_prefix,
            fsdp=fsdp,
        )
        planned = training.Planned(gpus, efficiency, pairs_per_second, price, as_json)
        training.print_training(network, GPUS[gpu], run, planned)
        return

    load = Load(
        requests, documents, query_tokens, document_tokens, image_tokens, cached, images_seen
    )
    assumed = Assumptions(efficiency=efficiency or Assumptions.efficiency)
    fleet = plan(
        network,
        GPUS[gpu],
        load,
        assumed,
        workers_per_gpu=workers_per_gpu,
        kept_documents=keep_documents,
        measured=pairs_per_second,
        price=price,
    )
    measured = pairs_per_second is not None
    print_load(network, GPUS[gpu], load, assumed, fleet, measured=measured, as_json=as_json)


def _given(context: typer.Context) -> set[str]:
    """Names of the parameters that were given on the command line or by the environment."""
    names: set[str] = set()
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            names.add(name)
    return names


def _check_given(given: set[str]) -> None:
    """Refuse options that belong to another plan than the one that is asked for."""
    if {"task", "train"} <= given:
        misuse("--task and --train ask for two plans.")
    plan = "train" if "train" in given else "task" if "task" in given else "load"
    for name, plans in _PLANS.items():
        if name not in given or plan in plans:
            continue
        option = "--" + name.replace("_", "-")
        if plan != "load":
            misuse(f"{option} does not fit --{plan}.")
        misuse(f"{option} belongs to {' and '.join(f'--{each}' for each in plans)}.")
