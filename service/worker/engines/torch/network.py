"""The network seam of the torch engine: its operations, and the choice of the class that has them.

Depends on checkpoints and tensors, not on calls or threads. Invariant: a network's scores of a row
do not depend on the other rows of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from model_store.checkpoint import Checkpoint
from model_store.families.generated_answer import Answer, AnswerReader
from model_store.families.prompt import Segment
from model_store.families.readout import GeneratedScore
from model_store.networks.catalogue import WHOLE_PAIRS
from service.wire import Pixels
from service.worker.engines.torch.decoder_network import DecoderNetwork
from service.worker.engines.torch.generating_network import GeneratingNetwork
from service.worker.engines.torch.pair_network import PairNetwork


class PrefixState(Protocol):
    """A prefix that a network has read."""

    @property
    def tokens(self) -> int:
        """The number of its tokens."""
        ...


class PromptReader(Protocol):
    """A checkpoint's weights on a device, as far as every network reads prompts."""

    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        """Embeddings of each image as a prompt takes them, `[tokens, values]`."""
        ...

    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> PrefixState:
        """The state from which suffixes are scored; an empty segment is the empty prefix.

        `images` has the embeddings of all images of the segment, by key.
        """
        ...

    def release_memory(self) -> None:
        """Free the memory that failed passes have left on a GPU."""
        ...


class Network(PromptReader, Protocol):
    """A network whose last hidden state has the score."""

    def score(
        self, prefix: Any, suffixes: Sequence[Segment], images: Mapping[bytes, Tensor]
    ) -> list[float]:
        """The raw score of each suffix after a prefix that `read_prefix` has given.

        `images` has the embeddings of all their images, by key.
        """
        ...


class Answers(Protocol):
    """Answers that are being written."""

    def step(self) -> bool:
        """Write one more token of each answer; returns False once all have ended."""
        ...

    @property
    def answers(self) -> list[Answer]:
        """The answers so far."""
        ...


@runtime_checkable
class AnsweringNetwork(PromptReader, Protocol):
    """A network that writes its scores as text."""

    def begin(
        self, prefix: Any, suffixes: Sequence[Segment], readers: Sequence[AnswerReader]
    ) -> Answers:
        """Read prompts of text; what is written after each goes to its reader."""
        ...


def open_network(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> Network | AnsweringNetwork:
    """The network of a checkpoint, loaded.

    Raises `CheckpointUnusable`, and what transformers raises for weights that cannot be loaded.
    """
    pairs = WHOLE_PAIRS.get(checkpoint.architecture.name)
    if pairs is not None:
        return PairNetwork(checkpoint, pairs, device, dtype)
    if isinstance(checkpoint.readout, GeneratedScore):
        return GeneratingNetwork(checkpoint, device, dtype)
    return DecoderNetwork(checkpoint, device, dtype)
