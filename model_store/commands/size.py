"""`gmr size`: the GPUs, memory and cost of a load.

Does not depend on how they are computed. Invariant: the output states what was assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from model_store.commands.console import misuse, refusing

if TYPE_CHECKING:
    from model_store.sizing.network import NetworkCost
    from model_store.sizing.plan import Assumptions, Fleet, Gpu, Kept, Load

_OF_LOAD = (
    "requests",
    "documents",
    "query_tokens",
    "document_tokens",
    "image_pixels",
    "cached",
    "workers_per_gpu",
    "keep_documents",
)
_OF_TASK = ("top_k", "first_stage", "gpus")


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
        float, typer.Option(help="Share of the GPU's bf16 peak that is reached.", min=0.01, max=1)
    ] = 0.5,
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
    gpus: Annotated[int, typer.Option(help="GPUs for --task.", min=1, max=10_000)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate how many GPUs a load needs, how much memory, and what a million pairs cost; or the
    storage, time and cost of an evaluation.

    This is arithmetic: measure before you buy."""
    from model_store.sizing.network import ImagesNotRead, UnknownNetwork, network_cost
    from model_store.sizing.plan import GPUS, Assumptions, Load, plan

    if gpu not in GPUS:
        misuse(f"--gpu is one of {', '.join(GPUS)}.")
    _check_given(context, of_load=task is None)

    with refusing(UnknownNetwork, usage=(ImagesNotRead,)):
        network = network_cost(model)
        if task is not None:
            from model_store.commands.size_evaluation import Asked, print_evaluation
            from model_store.evaluation.planning.plan import Machine

            machine = Machine(network, GPUS[gpu], efficiency, images_seen, pairs_per_second)
            print_evaluation(Asked(task, top_k, first_stage, gpus, price, as_json), machine)
            return
        image_tokens = image_pixels // network.token_pixels if image_pixels else 0

    load = Load(
        requests, documents, query_tokens, document_tokens, image_tokens, cached, images_seen
    )
    assumed = Assumptions(efficiency=efficiency)
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

    if as_json:
        _print_json(network, GPUS[gpu], load, assumed, fleet)
        return
    measured = pairs_per_second is not None
    for line in _lines(network, GPUS[gpu], load, assumed, fleet, measured=measured):
        typer.echo(line)


def _check_given(context: typer.Context, *, of_load: bool) -> None:
    """Refuse options of a load with --task, and those of a task without it."""
    for name in _OF_TASK if of_load else _OF_LOAD:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = "--" + name.replace("_", "-")
            misuse(f"{option} belongs to --task." if of_load else f"{option} does not fit --task.")


def _lines(
    network: NetworkCost,
    gpu: Gpu,
    load: Load,
    assumed: Assumptions,
    fleet: Fleet,
    *,
    measured: bool,
) -> list[str]:
    """The estimate as text."""
    document = f"{load.document_tokens} tokens"
    if load.image_tokens:
        document += f" and an image of {load.image_tokens}"

    memory = fleet.memory
    room = "too little is left for the KV cache"
    if fleet.fits:
        room = f"room for {memory.kv_tokens:,} tokens of KV cache"

    share = fleet.workers // fleet.gpus
    whose = f"of each of {share} workers: " if share > 1 else ""
    lines = [
        (
            f"{network.name}: {network.parameters / 1e9:.2f} B parameters on {gpu.name.upper()}"
            f" ({gpu.memory} GB), bf16"
        ),
        (
            f"load       {load.requests:g} requests/s of {load.documents} documents ({document})"
            f" after {load.query_tokens} tokens"
        ),
        (
            f"memory     {whose}{_gb(memory.weights)} weights, {_gb(memory.step)} activations,"
            f" {_gb(memory.reserve)} reserve; {room}"
        ),
    ]
    if not fleet.fits:
        advice = "take a larger GPU"
        if share > 1:
            advice = "take a larger GPU, or fewer workers on each"
        return [*lines, f"workers    none: it does not fit; {advice}"]

    source = f"at {assumed.efficiency:.0%} of {gpu.bf16:,.0f} TFLOP/s, not measured"
    if measured:
        source = "as measured"
    lines += [
        *_worker_lines(fleet, assumed, source),
        f"gateways   {fleet.gateways} of {assumed.gateway_cores} cores",
    ]
    if fleet.kept is not None:
        lines.append(_kept_line(fleet, fleet.kept))
    if fleet.cost is not None:
        lines.append(
            f"cost       {fleet.cost:,.2f} for a million pairs: {fleet.gpus + fleet.spare} GPUs at"
            f" {fleet.price_an_hour:,.2f} an hour"
        )
    return lines


def _worker_lines(fleet: Fleet, assumed: Assumptions, source: str) -> list[str]:
    """The rate of a GPU, and the workers, of which several may share one."""
    rate = f"{fleet.pairs_per_second:,.0f} pairs/s"
    alone = f"a request alone {fleet.request_seconds:.2f} s ({source})"
    share = fleet.workers // fleet.gpus
    busy = f"at {assumed.busy:.0%} of their time"
    if share == 1:
        return [
            f"one worker {rate}, {alone}",
            f"workers    {fleet.workers} {busy}, and {fleet.spare} to spare",
        ]
    return [
        f"one GPU    at most {rate} with {share} workers, {alone}",
        f"workers    {fleet.workers} on {fleet.gpus} GPUs {busy}, and {fleet.spare} GPU to spare",
    ]


def _kept_line(fleet: Fleet, kept: Kept) -> str:
    """The memory of documents that stay in KV caches, and the room for them."""
    room = kept.worker_documents * fleet.workers
    return (
        f"kept       {kept.documents:,} documents take {_gb(kept.bytes)} of KV cache;"
        f" the workers have room for {room:,}"
    )


def _print_json(
    network: NetworkCost, gpu: Gpu, load: Load, assumed: Assumptions, fleet: Fleet
) -> None:
    import json
    from dataclasses import asdict

    described = {
        "model": network.name,
        "parameters": network.parameters,
        "gpu": gpu.name,
        "load": asdict(load),
        "assumed": asdict(assumed),
        "fleet": asdict(fleet),
    }
    typer.echo(json.dumps(described, indent=2))


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
