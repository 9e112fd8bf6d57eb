"""The pairs, storage, time and cost of an evaluation.

Depends on the arithmetic of `sizing`, and not on hardware. Invariant: nothing here was measured on
a GPU; what is taken for granted has a name in `Assumptions` here and in `sizing.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model_store.evaluation.planning.sizes import DatasetSize
from model_store.sizing import plan as sizing
from model_store.sizing.network import NetworkCost, network_cost

GME = "monoqwen2-vl-v0.1"
"""A network of the same sizes as GME-Qwen2-VL-2B: that of Qwen2-VL-2B."""
_VECTOR_BYTES = 4


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Figures that stand in for a measurement of the data, of a run, and of a first stage."""

    characters_a_token: float = 4.3
    """Of English text in the vocabulary of Qwen."""
    template_tokens: int = 90
    """Of a prompt's template and its instruction."""
    max_pixels: int = 1_280 * 28**2
    """Of an image, which is resized to as many: the bound of GMR and GME."""
    max_tokens: int = 3_200
    """Of a document, which is cut at its end: the paper's bound of a pair."""
    busy: float = 0.9
    """Share of its time that a worker of a run without other requests works."""
    pair_bytes: int = 52
    """Of a run's folder: a document's id twice, its score and grade, as JSON."""
    cached_pair_bytes: int = 200
    """Of Redis, where scores are cached: 198 measured (`docs/sizing.md`)."""
    characters_a_word: float = 11
    """Of English text, for each word that BM25 keeps: stop words are dropped."""
    index_seconds: float = 2.3e-6
    index_bytes: float = 37
    """Of one core, and of memory at the peak, for a word of BM25's index; measured with 200,000 and
    400,000 generated documents of 30 words."""
    search_seconds: float = 0.45e-9
    """Of one core for a query of four words, and each word of the index; measured with them."""


@dataclass(frozen=True, slots=True)
class Part:
    """One dataset of an evaluation, or the sum of several."""

    queries: int = 0
    pairs: int = 0
    gpu_seconds: float = 0
    """Of GPUs that work all the time."""
    gateway_seconds: float = 0
    """Processor time of gateways."""

    def plus(self, other: Part) -> Part:
        """The sum of both."""
        return Part(
            self.queries + other.queries,
            self.pairs + other.pairs,
            self.gpu_seconds + other.gpu_seconds,
            self.gateway_seconds + other.gateway_seconds,
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """The model and the GPU of a plan; `images_seen` is the share of images whose embeddings the
    engine still has, `measured` the pairs a second of a GPU in place of the arithmetic."""

    network: NetworkCost
    gpu: sizing.Gpu
    efficiency: float = 0.5
    images_seen: float = 0.0
    measured: float | None = None


def plan_dataset(
    size: DatasetSize, top_k: int, machine: Machine, assumptions: Assumptions, *, own: bool = False
) -> Part:
    """The work for the first `top_k` documents of each query; of its `own` candidates, where those
    come with the data.

    Raises `ImagesNotRead` for images on a network of text.
    """
    documents = min(top_k, size.documents)
    if own and size.candidates is not None:
        documents = min(documents, max(1, round(size.candidates)))
    load = _load(size, documents, machine, assumptions)
    assumed = sizing.Assumptions(efficiency=machine.efficiency)
    seconds = sizing.gpu_seconds(machine.network, machine.gpu, load, assumed)
    if size.query_pixels:
        tokens = _image_tokens(size.query_pixels, machine.network, assumptions)
        operations = machine.network.tower().operations(tokens)
        seconds += operations / (machine.gpu.bf16 * 1e12 * machine.efficiency)
    seconds += documents * assumed.pair_seconds
    if machine.measured is not None:
        seconds = documents / machine.measured

    gateway = documents * assumed.gateway_pair_seconds
    if size.document_pixels:
        # images arrive as they are, and gateways resize them
        gateway += documents * assumed.gateway_image_seconds
        gateway += documents * size.document_pixels / 1e6 * assumed.gateway_megapixel_seconds
    return Part(
        queries=size.queries,
        pairs=size.queries * documents,
        gpu_seconds=size.queries * seconds,
        gateway_seconds=size.queries * gateway,
    )


def embedding_seconds(
    sizes: Iterable[DatasetSize], machine: Machine, assumptions: Assumptions
) -> float:
    """GPU seconds for the vectors of all documents by GME-Qwen2-VL-2B, on the machine's GPU."""
    network = network_cost(GME)
    gme = Machine(network, machine.gpu, machine.efficiency)
    assumed = sizing.Assumptions(efficiency=machine.efficiency)
    total = 0.0
    for size in sizes:
        load = _load(size, size.documents, gme, assumptions)
        alone = sizing.Load(
            documents=size.documents,
            query_tokens=0,
            document_tokens=load.document_tokens + assumptions.template_tokens // 2,
            image_tokens=load.image_tokens,
        )
        total += sizing.gpu_seconds(network, machine.gpu, alone, assumed)
        total += size.documents * assumed.pair_seconds
    return total


def vector_bytes(documents: int) -> int:
    """Bytes of the vectors of so many documents by GME-Qwen2-VL-2B."""
    return documents * network_cost(GME).decoder.width * _VECTOR_BYTES


def _load(
    size: DatasetSize, documents: int, machine: Machine, assumptions: Assumptions
) -> sizing.Load:
    """One query and its documents, as a request."""
    query = assumptions.template_tokens + _text_tokens(size.query_characters, assumptions)
    if size.query_pixels:
        query += _image_tokens(size.query_pixels, machine.network, assumptions)
    image = 0
    if size.document_pixels:
        image = _image_tokens(size.document_pixels, machine.network, assumptions)
    return sizing.Load(
        documents=documents,
        query_tokens=query,
        document_tokens=_text_tokens(size.document_characters, assumptions),
        image_tokens=image,
        images_seen=machine.images_seen,
    )


def _text_tokens(characters: float, assumptions: Assumptions) -> int:
    return min(round(characters / assumptions.characters_a_token), assumptions.max_tokens)


def _image_tokens(pixels: float, network: NetworkCost, assumptions: Assumptions) -> int:
    bounded = min(pixels, assumptions.max_pixels)
    return max(1, round(bounded / network.token_pixels))
