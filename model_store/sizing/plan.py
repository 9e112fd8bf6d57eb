"""From a load to a fleet: pairs a second of one GPU, workers, gateways, memory, and what a million
pairs cost.

Knows arithmetic and the figures behind it, and which of them were measured. Invariant: nothing here
was measured on a GPU; `Assumed` says what is taken for granted, and a measured `pairs_per_second`
replaces it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_store.sizing.network import Shape

GIB = 1 << 30


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
    """What is asked for."""

    requests: float = 1.0
    """A second."""
    documents: int = 100
    query_tokens: int = 300
    """Instruction and template included; an image's tokens as well."""
    document_tokens: int = 130
    """Of text."""
    image_tokens: int = 0
    """Of a document's image: its pixels over 784, within the model's bounds."""
    cached: float = 0.0
    """Share of the pairs whose score is known."""
    images_seen: float = 0.0
    """Share of the images whose embeddings the engine still has."""


@dataclass(frozen=True)
class Assumed:
    """What stands in for a measurement."""

    efficiency: float = 0.5
    """Share of the vendor's figure that the engine reaches. On a CPU, vLLM reached 0.88 of what
    matrix products alone reach there (`docs/benchmarks.md`), and on Hopper chips those reach 0.8 of
    the vendor's figure: 0.5 leaves room."""
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
    """Bytes of GPU memory that a worker needs, and what fits besides."""

    weights: int
    step: int
    reserve: int
    kv_tokens: int
    """Tokens for which the rest has room in the KV cache; negative where the model does not fit."""


@dataclass(frozen=True)
class Fleet:
    """What serves the load."""

    pairs_per_second: float
    """Of one worker on one GPU, working all the time."""
    request_seconds: float
    """A request with nothing cached, alone on one worker."""
    workers: int
    spare: int
    gateways: int
    memory: Memory
    fits: bool
    cost: float | None
    """Of a million pairs asked for, in the unit of the price; the spare worker is not counted."""


def plan(
    shape: Shape,
    gpu: Gpu,
    load: Load,
    assumed: Assumed,
    *,
    measured: float | None = None,
    price: float | None = None,
) -> Fleet:
    """The fleet for a load; `measured` pairs a second of one worker stand above the arithmetic,
    `price` is a GPU's an hour."""
    rate = measured or load.documents / _seconds(shape, gpu, load, assumed)
    asked = load.requests * load.documents
    workers = max(1, math.ceil(asked * (1 - load.cached) / (rate * assumed.busy)))
    memory = _memory(shape, gpu, assumed)
    return Fleet(
        pairs_per_second=rate,
        request_seconds=load.documents / rate,
        workers=workers,
        spare=1,
        gateways=max(
            2,
            math.ceil(
                load.requests
                * _gateway_seconds(load, assumed)
                / (assumed.gateway_cores * assumed.busy)
            ),
        ),
        memory=memory,
        fits=memory.kv_tokens >= 3 * assumed.step_tokens,  # the engine is kept three steps ahead
        cost=None
        if price is None
        else price / 3600 / (rate * assumed.busy) * 1e6 * (1 - load.cached),
    )


def _seconds(shape: Shape, gpu: Gpu, load: Load, assumed: Assumed) -> float:
    """Time of one request's pairs, all to be computed, on one GPU."""
    read = shape.operations(
        load.query_tokens, load.document_tokens + load.image_tokens, load.documents
    )
    seen = shape.vision.operations(4 * load.image_tokens, shape.width) if load.image_tokens else 0.0
    total = read + load.documents * (1 - load.images_seen) * seen
    return total / (gpu.bf16 * 1e12 * assumed.efficiency) + load.documents * assumed.pair_seconds


def _gateway_seconds(load: Load, assumed: Assumed) -> float:
    """Processor time of one request in a gateway."""
    megapixels = load.image_tokens * 784 / 1e6
    image = (
        assumed.gateway_image_seconds + megapixels * assumed.gateway_megapixel_seconds
        if megapixels
        else 0.0
    )
    return load.documents * (assumed.gateway_pair_seconds + image)


def _memory(shape: Shape, gpu: Gpu, assumed: Assumed) -> Memory:
    step = shape.step_bytes(assumed.step_tokens)
    # vLLM takes nine tenths by default
    rest = int(gpu.memory * 1e9 * 0.9) - shape.weight_bytes - step - assumed.reserve
    return Memory(shape.weight_bytes, step, assumed.reserve, rest // shape.kv_bytes)
