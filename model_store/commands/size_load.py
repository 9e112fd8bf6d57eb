"""`gmr size` of a load: the fleet, its memory and the cost of a million pairs, as text or JSON.

Does not depend on how they are computed. Invariant: the output states what was assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from model_store.commands.size_lines import document_size, gb, heading, print_json, rate_source

if TYPE_CHECKING:
    from model_store.sizing.network import NetworkCost
    from model_store.sizing.plan import Assumptions, Fleet, Gpu, Kept, Load


def print_load(
    network: NetworkCost,
    gpu: Gpu,
    load: Load,
    assumed: Assumptions,
    fleet: Fleet,
    *,
    measured: bool,
    as_json: bool,
) -> None:
    """Print the fleet of a load; `measured` says that its rate is no estimate."""
    if as_json:
        print_json(network, gpu, load=load, assumed=assumed, fleet=fleet)
        return
    for line in _lines(network, gpu, load, assumed, fleet, measured=measured):
        typer.echo(line)


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
    document = document_size(load.document_tokens, load.image_tokens)
    memory = fleet.memory
    room = "too little is left for the KV cache"
    if fleet.fits:
        room = f"room for {memory.kv_tokens:,} tokens of KV cache"

    share = fleet.workers // fleet.gpus
    whose = f"of each of {share} workers: " if share > 1 else ""
    lines = [
        heading(network, gpu),
        (
            f"load       {load.requests:g} requests/s of {load.documents} documents ({document})"
            f" after {load.query_tokens} tokens"
        ),
        (
            f"memory     {whose}{gb(memory.weights)} weights, {gb(memory.step)} activations,"
            f" {gb(memory.reserve)} reserve; {room}"
        ),
    ]
    if not fleet.fits:
        advice = "take a larger GPU"
        if share > 1:
            advice = "take a larger GPU, or fewer workers on each"
        return [*lines, f"workers    none: it does not fit; {advice}"]

    source = rate_source(gpu, assumed.efficiency, measured=measured)
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
        f"kept       {kept.documents:,} documents take {gb(kept.bytes)} of KV cache;"
        f" the workers have room for {room:,}"
    )
