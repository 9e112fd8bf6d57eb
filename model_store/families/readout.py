"""The read-out: from the last hidden state of a pair to its raw score, and on to a probability.

Depends on names of labels and on arithmetic that arrays and numbers share; loads nothing.
Invariant: a raw score is linear in the last hidden state, so a read-out is one row of weights, and
every engine and trainer computes the score as the product with that row, in fp32. The exceptions
are `TwoLayerHead`, which is no row, and `GeneratedScore`: the model writes the score as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeVar

from model_store.manifest import CheckpointUnusable

_SEPARATOR = " - "
SCORE_HEAD = "score head"
TWO_LAYER_HEAD = "two-layer score head"


class _Subtractable(Protocol):
    def __sub__(self, other: Any, /) -> Any: ...


Value = TypeVar("Value", bound=_Subtractable)
"""A logit, or a row of the output embeddings."""


@dataclass(frozen=True, slots=True)
class LabelPair:
    """logit(positive) - logit(negative) of the next token (paper, equation 1).

    The sigmoid of the raw score is the probability of the positive label among the two.
    """

    positive: str
    negative: str

    @property
    def name(self) -> str:
        """The read-out as manifests and adapters state it."""
        return f"{self.positive}{_SEPARATOR}{self.negative}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Words whose rows of the output embeddings `combine` expects, in its order."""
        return self.positive, self.negative

    def combine(self, values: Sequence[Value]) -> Value:
        """The raw score from the labels' logits, or its row from the labels' rows."""
        positive, negative = values
        difference: Value = positive - negative
        return difference

    def vllm_classifier(self) -> dict[str, Any]:
        """The part of vLLM's `hf_overrides` that makes its classifier read this score."""
        return {
            "method": "from_2_way_softmax",
            "classifier_from_token": [self.negative, self.positive],
        }


@dataclass(frozen=True, slots=True)
class SingleLabel:
    """logit(label) of the next token: contrastive learning trains this one (paper, equation 2).

    It orders documents as training did. Its sigmoid is monotone and lies between 0 and 1, but was
    not trained to be a probability.
    """

    label: str

    @property
    def name(self) -> str:
        """The read-out as manifests and adapters state it."""
        return self.label

    @property
    def labels(self) -> tuple[str, ...]:
        """The label alone."""
        return (self.label,)

    def combine(self, values: Sequence[Value]) -> Value:
        """The label's own logit or row."""
        (value,) = values
        return value

    def vllm_classifier(self) -> dict[str, Any]:
        """The part of vLLM's `hf_overrides` that makes its classifier read this score."""
        return {"method": "no_post_processing", "classifier_from_token": [self.label]}


class _OwnHead:
    """A head that is part of the network."""

    __slots__ = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Empty: the network has the weights of the score, not of labels."""
        return ()

    def combine(self, values: Sequence[Value]) -> Value:
        """The head's own row or output."""
        (value,) = values
        return value

    def vllm_classifier(self) -> dict[str, Any]:
        """Empty: vLLM loads such a head by itself."""
        return {}


@dataclass(frozen=True, slots=True)
class ScoreHead(_OwnHead):
    """The network's own head of one score, such as `Qwen3ForSequenceClassification` has."""

    tensor: str = "score.weight"
    """`[1, hidden]`."""

    @property
    def name(self) -> str:
        """The read-out as manifests and adapters state it."""
        return SCORE_HEAD


@dataclass(frozen=True, slots=True)
class TwoLayerHead(_OwnHead):
    """The network's own head of two linear layers with a ReLU between them, such as
    `JinaVLForRanking` has. It is served, not trained here.
    """

    first: str = "score.0"
    """Module with the weight `[hidden, hidden]` and a bias."""
    second: str = "score.2"
    """Module with the weight `[1, hidden]` and a bias."""

    @property
    def name(self) -> str:
        """The read-out as manifests and adapters state it."""
        return TWO_LAYER_HEAD


@dataclass(frozen=True, slots=True)
class GeneratedScore:
    """A whole number that the model writes after it has thought, times the number's probability.

    The probability is the product of those of the tokens that wrote the number.
    """

    lowest: int
    highest: int
    max_tokens: int
    """Tokens that the model may write for a pair, where the operator sets no other bound."""

    @property
    def name(self) -> str:
        """The read-out as manifests state it."""
        return f"generated {self.lowest}..{self.highest}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Empty: the number's tokens are found in the text."""
        return ()

    def combine(self, values: Sequence[Any]) -> NoReturn:
        """Raise `CheckpointUnusable`: no row of weights gives this score."""
        raise CheckpointUnusable(
            f"The score {self.name} is written as text, and no row of weights gives it."
        )

    def vllm_classifier(self) -> dict[str, Any]:
        """Empty: vLLM generates text."""
        return {}


ReadOut = LabelPair | SingleLabel | ScoreHead | TwoLayerHead | GeneratedScore


@dataclass(frozen=True, slots=True)
class Transform:
    """A monotone function from a raw score x to the relevance score that clients get.

    It is (x - shift) / scale on a `linear` curve, and the sigmoid of that on a `sigmoid` curve.
    """

    curve: Literal["sigmoid", "linear"] = "sigmoid"
    scale: float = 1.0
    shift: float = 0.0


_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_TRANSFORM = re.compile(
    rf"(?P<sigmoid>sigmoid\()?x(?: - (?P<shift>{_NUMBER}))?(?: / (?P<scale>{_NUMBER}))?\)?"
)


def transform_of(name: str) -> Transform:
    """A transform from the name that manifests state, since clients set thresholds on its values.

    Names are `sigmoid`, `identity`, `sigmoid(x - 2.65)`, `sigmoid(x / 5)`, `x / 10` and the like.
    Raises `ValueError` for any other.
    """
    if name == "sigmoid":
        return Transform()
    if name == "identity":
        return Transform("linear")

    found = _TRANSFORM.fullmatch(name)
    if not found or name.endswith(")") != bool(found["sigmoid"]):
        raise ValueError(name)
    shift, scale = float(found["shift"] or 0), float(found["scale"] or 1)
    if not scale or bool(found["shift"]) == bool(found["scale"]):
        raise ValueError(name)  # one name for each transform
    return Transform("sigmoid" if found["sigmoid"] else "linear", scale, shift)
