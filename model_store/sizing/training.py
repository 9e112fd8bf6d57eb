"""The cost of a LoRA run: GPU hours, memory by part, and the largest batch.

Depends on arithmetic over a network's sizes, and not on hardware. Invariant: nothing here was
measured on a GPU of ours; `Assumptions` states what is taken for granted, and the tests hold
operations and saved activations equal to what PyTorch does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_store.sizing.network import NetworkCost
from model_store.sizing.plan import Gpu

_BYTES = 2  # of a bf16 number
_ADAPTER_BYTES = 4 + 4 + 8
"""Bytes of a parameter of the adapter: fp32 value, gradient, and AdamW's two moments."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of `gmr train`, as far as its cost depends on it."""

    rows: int
    documents: int = 17
    """A row's positive and its negatives."""
    query_tokens: int = 300
    """Before a document: template, instruction, query."""
    document_tokens: int = 130
    image_tokens: int = 0
    """Tokens of a document's image."""
    epochs: float = 1.0
    rank: int = 16
    dropout: bool = True
    batch_tokens: int = 65_536
    """Tokens of one forward pass in one process."""
    checkpointing: bool = True
    shared_prefix: bool = False
    """True: a group's instruction and query are computed once, and not with each document."""
    fsdp: bool = False
    """True: the GPUs split the weights among them."""

    @property
    def group_tokens(self) -> int:
        """Tokens that are computed of a row and all its documents."""
        documents = self.documents * (self.document_tokens + self.image_tokens)
        return documents + self.query_tokens * (1 if self.shared_prefix else self.documents)

    @property
    def passes(self) -> int:
        """Forward passes of a group besides the one that checkpointing repeats: a group that is
        larger than a batch is read twice."""
        return 2 if self.group_tokens > self.batch_tokens else 1


@dataclass(frozen=True)
class Assumptions:
    """Figures that stand in for a measurement."""

    efficiency: float = 0.35
    """Share of the vendor's bf16 figure that a run reaches, of all that it computes, recomputed
    activations included. Qwen's published LoRA runs of a 7 B model on an A100 give 0.23 with 256
    tokens a pass, 0.40 with 1,024 and 0.50 with 8,192 (`docs/sizing.md`); larger chips are filled
    less."""
    attention_backward: float = 2.5
    """Operations of attention backwards, relative to forwards: five matrix products for two, since
    fused attention computes the scores again."""
    reserve: int = 3 * 2**30
    """Bytes for CUDA, its libraries, fragmentation and the batch itself."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of GPU memory of one process, by part."""

    weights: int
    adapter: int
    """Its values, gradients and moments."""
    activations: int
    """Activations of a batch at its bound."""
    reserve: int
    largest_batch_tokens: int
    """As many as the rest has room for, rounded down to 1,024; 0 where the weights do not fit."""

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.adapter + self.activations + self.reserve


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The cost of a run on some GPUs."""

    adapter_parameters: int
    pairs: int
    tokens: int
    """Tokens that one forward pass of all rows computes, images included."""
    operations: float
    gpu_hours: float
    hours: float
    pairs_per_second: float
    """The rate of one GPU."""
    memory: TrainingMemory
    fits: bool
    price: float | None


def training_cost(
    network: NetworkCost,
    gpu: Gpu,
    run: Run,
    assumptions: Assumptions,
    *,
    gpus: int = 1,
    measured: float | None = None,
    price: float | None = None,
) -> TrainingCost:
    """The cost of a run.

    `measured` pairs a second of one GPU take precedence over the arithmetic; `price` is that of a
    GPU for an hour. Raises `ImagesNotRead` for images on a network of text.
    """
    groups = run.rows * run.epochs
    pairs = math.ceil(groups * run.documents)
    operations = groups * group_operations(network, run, assumptions)
    rate = gpu.bf16 * 1e12 * assumptions.efficiency
    seconds = operations / rate if measured is None else pairs / measured

    memory = training_memory(network, gpu, run, assumptions, gpus)
    hours = seconds / 3600
    return TrainingCost(
        adapter_parameters=network.adapter_parameters(run.rank),
        pairs=pairs,
        tokens=math.ceil(groups * run.group_tokens),
        operations=operations,
        gpu_hours=hours,
        hours=hours / gpus,
        pairs_per_second=pairs / seconds,
        memory=memory,
        fits=memory.total <= gpu.memory * 1e9,
        price=None if price is None else price * hours,
    )


def group_operations(network: NetworkCost, run: Run, assumptions: Assumptions) -> float:
    """Floating point operations of a row and its documents, forwards and backwards.

    The base is frozen: backwards, a linear map costs what it costs forwards, and the vision tower
    nothing. The adapter's own maps have gradients of inputs and of weights.
    """
    document = run.document_tokens + run.image_tokens
    forward = run.passes + (1 if run.checkpointing else 0)
    tokens = run.group_tokens
    if run.shared_prefix:
        attended = run.query_tokens**2 / 2
        attended += run.documents * document * (run.query_tokens + document / 2)
    else:
        attended = run.documents * (run.query_tokens + document) ** 2 / 2

    linear = tokens * network.token_operations * (forward + 1)
    attention = attended * network.attention_operations
    attention *= forward + assumptions.attention_backward
    adapter = tokens * 2 * network.adapter_parameters(run.rank) * (forward + 2)

    images = 0.0
    if run.image_tokens:
        images = run.documents * run.passes * network.tower().operations(run.image_tokens)
    return linear + attention + adapter + images


def training_memory(
    network: NetworkCost, gpu: Gpu, run: Run, assumptions: Assumptions, gpus: int
) -> TrainingMemory:
    """The memory of one process, of `gpus` that share the weights where they are split."""
    weights = network.weight_bytes
    if run.fsdp and gpus > 1:
        layer = weights // network.decoder.layers
        weights = weights // gpus + 2 * layer  # two layers are gathered at a time

    adapter = network.adapter_parameters(run.rank) * _ADAPTER_BYTES
    each = token_bytes(network, run)
    rest = gpu.memory * 1e9 - weights - adapter - assumptions.reserve
    return TrainingMemory(
        weights=weights,
        adapter=adapter,
        activations=run.batch_tokens * each,
        reserve=assumptions.reserve,
        largest_batch_tokens=max(0, int(rest / each) // 1024 * 1024),
    )


def token_bytes(network: NetworkCost, run: Run) -> int:
    """Bytes that a token of a batch takes.

    With checkpointing each layer keeps its input alone, and one layer at a time its activations;
    without it, all layers keep theirs. Gradients pass through one layer, or a vision tower works
    before.
    """
    sizes = network.decoder
    layer = layer_bytes(network, run.rank, dropout=run.dropout) + shared_key_bytes(network, run)
    kept = sizes.layers * layer
    if run.checkpointing:
        kept = sizes.layers * sizes.width * _BYTES + layer
    return kept + network.step_bytes(1)


def shared_key_bytes(network: NetworkCost, run: Run) -> int:
    """Bytes that a layer keeps for a token beyond `layer_bytes` where prefixes are shared, else 0.

    Each document has a copy of its prefix's keys and values before its own, repeated for all heads;
    a network with one key head repeats them without a copy. Queries of documents, and the attention
    of prefix and documents, are there twice: as rows, and in the packed row.
    """
    if not run.shared_prefix:
        return 0

    sizes, tokens = network.decoder, run.group_tokens
    own = tokens - run.query_tokens
    seen = run.documents * run.query_tokens + own
    if sizes.key_heads == 1:
        keys = 2 * seen
    else:
        keys = 2 * sizes.heads * (run.query_tokens + seen) - 2 * sizes.key_heads * tokens
    twice = sizes.heads * (own + tokens)
    return math.ceil(_BYTES * sizes.head * (keys + twice) / tokens)


def layer_bytes(network: NetworkCost, rank: int, *, dropout: bool) -> int:
    """Bytes of activations that one layer of the decoder keeps for a token's gradient.

    In bf16, with norms in fp32 and a low-rank map beside each of seven linear maps. A dropout
    before each of these keeps its mask and its output.
    """
    sizes = network.decoder
    norms = 2 * (4 + 2 + 2) * sizes.width
    residual = 2 * _BYTES * sizes.width
    attention = _BYTES * sizes.head * (2 * sizes.heads + 2 * sizes.key_heads)
    gated = 4 * _BYTES * sizes.inner
    adapters = 7 * _BYTES * rank
    kept = norms + residual + attention + gated + adapters
    if dropout:
        inputs = 5 * sizes.width + sizes.heads * sizes.head + sizes.inner
        kept += 2 * _BYTES * inputs
    return kept
