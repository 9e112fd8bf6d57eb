"""The fleet for a load: workers, gateways, memory, and the cost of a million pairs.

Depends on arithmetic and on the figures behind it, and not on hardware. Invariant: nothing here was
measured on a GPU; `Assumptions` states what is taken for granted, and a measured
`pairs_per_second` replaces it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_store.sizing.network import NetworkCost

GIB = 1 << 30
_MEMORY_SHARE = 0.9  # that vLLM takes by default
_STEPS_AHEAD = 3  # that the engine is kept supplied with
_SPARE = 1  # GPU, for one that fails or is replaced


@dataclass(frozen=True)
class Gpu:
    """One GPU as its vendor describes it."""

    name: str
    memory: int
    """GB, as the vendor counts."""
    bf16: float
    """Dense bf16, in TFLOP/s."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("b200", 180, 2250),
        Gpu("h200", 141, 989),
        Gpu("h100", 80, 989),
        Gpu("a100", 80, 312),
        Gpu("a100-40gb", 40, 312),
        Gpu("l40s", 48, 362),
        Gpu("l4", 24, 121),
        Gpu("a10", 24, 125),
    )
}


@dataclass(frozen=True)
class Load:
    """Requests that arrive, and what each of them holds."""

    requests: float = 1.0
    """Per second."""
    documents: int = 100
    query_tokens: int = 300
    """Instruction and template included; an image's tokens as well."""
    document_tokens: int = 130
    """Of text."""
    image_tokens: int = 0
    """Of a document's image: its pixels over those of a token, within the model's bounds."""
    cached: float = 0.0
    """Share of the pairs whose score is known."""
    images_seen: float = 0.0
    """Share of the images whose embeddings the engine still has."""


@dataclass(frozen=True)
class Assumptions:
    """Figures that stand in for a measurement."""

    efficiency: float = 0.5
    """Share of the vendor's figure that the engine reaches. On a CPU, vLLM reached 0.88 of what
    matrix products alone reach there (`docs/benchmarks.md`), and on Hopper chips those reach 0.8 of
    the vendor's figure: 0.5 leaves room. Published rates of a 0.6 B model on an H100 give 0.22 to
    0.61, with the time around each pair (`docs/sizing.md`)."""
    pair_seconds: float = 0.0003
    """Python around each pair, which no GPU makes faster: 0.27 to 0.32 ms measured with vLLM 0.32
    on a CPU core."""
    busy: float = 0.6
    """Share of its time that a worker works, so that bursts do not wait."""
    step_tokens: int = 16384
    """Tokens of one engine step, `RERANK_ENGINE_MAX_NUM_BATCHED_TOKENS`."""
    reserve: int = 3 * GIB
    """Memory for CUDA, its graphs, and vLLM's own."""
    gateway_pair_seconds: float = 0.000103
    """Gateway time for a text pair that is not cached: 10.3 ms per 100, `gmr bench`."""
    gateway_image_seconds: float = 0.003
    gateway_megapixel_seconds: float = 0.012
    """Time to decode and resize an image, and for each megapixel of it; measured: 4.3 ms for 448 x
    448, 72 ms for 3000 x 2000."""
    gateway_cores: int = 2
    """Cores of one gateway pod."""


@dataclass(frozen=True)
class Memory:
    """Bytes of GPU memory that a worker needs, and the room for its KV cache."""

    weights: int
    step: int
    reserve: int
    kv_tokens: int
    """Tokens for which the rest has room in the KV cache; negative where the model does not fit."""


@dataclass(frozen=True)
class Kept:
    """Documents that stay in KV caches under new queries."""

    documents: int
    bytes: int
    """Of KV cache that they take in all workers together."""
    worker_documents: int
    """As many of them as one worker has room for."""


@dataclass(frozen=True)
class Fleet:
    """Processes that serve a load."""

    pairs_per_second: float
    """Of one GPU, whose workers work all the time; of several workers, at most."""
    request_seconds: float
    """A request with nothing cached, alone on one worker."""
    workers: int
    gpus: int
    spare: int
    """GPUs beside those, with their workers."""
    gateways: int
    memory: Memory
    """Of one worker."""
    fits: bool
    kept: Kept | None
    price_an_hour: float | None
    """Of all GPUs, the spare ones too, in the unit of the price; gateways are not counted."""
    cost: float | None
    """Of a million requested pairs at this load, with all those GPUs."""


def plan(
    network: NetworkCost,
    gpu: Gpu,
    load: Load,
    assumptions: Assumptions,
    *,
    workers_per_gpu: int = 1,
    kept_documents: int = 0,
    measured: float | None = None,
    price: float | None = None,
) -> Fleet:
    """The fleet for a load.

    `kept_documents` are to stay in KV caches. `measured` pairs a second of one GPU take precedence
    over the arithmetic; `price` is that of a GPU for an hour. Raises `ImagesNotRead` for a load
    with images on a network of text.
    """
    computing = gpu_seconds(network, gpu, load, assumptions)
    alone = computing + load.documents * assumptions.pair_seconds
    # while Python of one worker runs, the others compute, until the GPU always does
    together = max(computing, alone / workers_per_gpu)
    rate = measured or load.documents / together
    sustained_rate = rate * assumptions.busy
    missed_pairs = load.requests * load.documents * (1 - load.cached)

    gateway_load = load.requests * _gateway_seconds(network, load, assumptions)
    gateway_capacity = assumptions.gateway_cores * assumptions.busy

    gpus = max(1, math.ceil(missed_pairs / sustained_rate))
    price_an_hour = None if price is None else price * (gpus + _SPARE)
    cost = None
    if price_an_hour is not None:
        cost = price_an_hour / 3600 / (load.requests * load.documents) * 1e6

    memory = _memory(network, gpu, assumptions, workers_per_gpu)
    return Fleet(
        pairs_per_second=rate,
        request_seconds=load.documents / rate * alone / together,
        workers=gpus * workers_per_gpu,
        gpus=gpus,
        spare=_SPARE,
        gateways=max(2, math.ceil(gateway_load / gateway_capacity)),
        memory=memory,
        fits=memory.kv_tokens >= _STEPS_AHEAD * assumptions.step_tokens,
        kept=_kept(network, load, memory, kept_documents) if kept_documents else None,
        price_an_hour=price_an_hour,
        cost=cost,
    )


def gpu_seconds(network: NetworkCost, gpu: Gpu, load: Load, assumptions: Assumptions) -> float:
    """Time of the GPU for one request's pairs, with none of them cached."""
    operations = network.operations(
        load.query_tokens, load.document_tokens + load.image_tokens, load.documents
    )
    if load.image_tokens:
        image = network.tower().operations(load.image_tokens)
        operations += load.documents * (1 - load.images_seen) * image

    rate = gpu.bf16 * 1e12 * assumptions.efficiency
    return operations / rate


def _gateway_seconds(network: NetworkCost, load: Load, assumptions: Assumptions) -> float:
    """Processor time of one request in a gateway."""
    document = assumptions.gateway_pair_seconds
    if load.image_tokens:
        megapixels = load.image_tokens * network.token_pixels / 1e6
        document += assumptions.gateway_image_seconds
        document += megapixels * assumptions.gateway_megapixel_seconds
    return load.documents * document


def _memory(network: NetworkCost, gpu: Gpu, assumptions: Assumptions, workers: int) -> Memory:
    """The memory of each of the workers that share a GPU, which has the weights once for each."""
    step = network.step_bytes(assumptions.step_tokens)
    available = int(gpu.memory * 1e9 * _MEMORY_SHARE / workers)
    rest = available - network.weight_bytes - step - assumptions.reserve
    return Memory(network.weight_bytes, step, assumptions.reserve, rest // network.kv_bytes)


def _kept(network: NetworkCost, load: Load, memory: Memory, documents: int) -> Kept:
    """The memory of documents that stay, and the room for them."""
    tokens = load.document_tokens + load.image_tokens
    each = network.kept_bytes(2, tokens) / 2  # one and a half times a document is no whole block
    room = max(0, memory.kv_tokens) * network.kv_bytes
    return Kept(
        documents,
        network.kept_bytes(documents, tokens),
        int(room / each) if each else 0,
    )
