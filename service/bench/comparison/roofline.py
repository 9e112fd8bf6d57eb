"""The least arithmetic that a request needs, in floating point operations.

Counted from unique tokens: the prefix once, each document once that no earlier request had, each
distinct image once. A multiplication and an addition are two operations. With T unique tokens,
L language layers of hidden size h, q query and k key-value heads of size d, and intermediate
size i:

    linear     2 T L (h q d + 2 h k d + q d h + 3 h i)
    attention  4 L q d (sum over tokens of the tokens that each attends to, itself included)
    vision     2 n (patch embedding + V layers of 4 v^2 + 3 v j)
               + 4 v n (w windowed + n full layers) + 2 n/4 (merger)

with n patches, hidden size v, intermediate size j, and w patches of a window. Softmax, norms,
rotary encoding, embeddings and the read-out are left out: together they are below one percent.
Depends on a checkpoint's sizes and its prompts, not on an engine. Invariant: no engine that
computes each pair exactly needs fewer operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.checkpoint import Checkpoint
from model_store.families.family import ImageRules
from model_store.families.prompt import Image, Prompt, Segment
from model_store.sizing.network import NetworkCost
from service.bench.comparison.vllm_server import model_size
from service.bench.workloads import INSTRUCTION, Part, Request


@dataclass(frozen=True, slots=True)
class Work:
    """The least work of some requests: unique tokens, and operations."""

    tokens: int
    operations: float


def layer_matrices(network: NetworkCost) -> list[tuple[int, int]]:
    """(inputs, outputs) of a layer's products as engines compute them.

    Queries, keys and values are one product; so are gate and up.
    """
    sizes = network.decoder
    queries, keys = sizes.heads * sizes.head, sizes.key_heads * sizes.head
    return [
        (sizes.width, queries + 2 * keys),
        (queries, sizes.width),
        (sizes.width, 2 * sizes.inner),
        (sizes.inner, sizes.width),
    ]


def text_operations(network: NetworkCost, prefix: int, suffixes: Sequence[int]) -> float:
    """Operations for a prefix that is computed once, and for its suffixes, in tokens."""
    tokens = prefix + sum(suffixes)
    attended = _triangle(prefix)
    for suffix in suffixes:
        attended += prefix * suffix + _triangle(suffix)

    linear = sum(inputs * outputs for inputs, outputs in layer_matrices(network))
    queries = network.decoder.heads * network.decoder.head
    return network.decoder.layers * (2.0 * tokens * linear + 4.0 * queries * attended)


def image_operations(network: NetworkCost, rules: ImageRules, image: Image) -> float:
    """Operations for one image of the size that the model reads."""
    return network.tower().operations(rules.tokens(image))


def least_work(requests: Sequence[Request], checkpoint: Checkpoint, network: NetworkCost) -> Work:
    """The least work of some requests; documents of an earlier request need none."""
    tokens, operations = 0, 0.0
    for request in requests:
        prompts = _new_prompts(request, checkpoint)

        suffixes: dict[Segment, list[int]] = {}
        images: set[Image] = set()
        for prompt in prompts:
            suffixes.setdefault(prompt.prefix, []).append(len(prompt.suffix.ids))
            images.update(prompt.images)

        for prefix, lengths in suffixes.items():
            tokens += len(prefix.ids) + sum(lengths)
            operations += text_operations(network, len(prefix.ids), lengths)
        for image in images:
            operations += image_operations(network, _image_rules(checkpoint), image)
    return Work(tokens, operations)


def _new_prompts(request: Request, checkpoint: Checkpoint) -> list[Prompt]:
    """The prompts of a request's documents that no earlier request had."""
    query = prompt_part(request.query, checkpoint)
    documents = [prompt_part(part, checkpoint) for part in request.documents[request.repeated :]]
    rendered = checkpoint.family.render(
        (INSTRUCTION,), (query,), [(document,) for document in documents]
    )
    return [prompt for prompt in rendered if isinstance(prompt, Prompt)]


def prompt_part(part: Part, checkpoint: Checkpoint) -> str | Image:
    """A text, or an image in the size that the model reads."""
    if isinstance(part, str):
        return part
    digest = hashlib.sha256(part.tobytes()).digest()
    return Image(digest, *model_size(part.size, _image_rules(checkpoint)))


def _image_rules(checkpoint: Checkpoint) -> ImageRules:
    rules = checkpoint.family.images
    assert rules is not None, "the workload has images"
    return rules


def _triangle(tokens: int) -> int:
    """The sum of the tokens that each of `tokens` attends to, itself included."""
    return tokens * (tokens + 1) // 2
