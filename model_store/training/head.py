"""The head: fp32 logits of a few words from a final hidden state, never of the whole vocabulary.

Depends on tensors and words, not on prompts or a loss. Invariant: logits are in the order of the
words, yes first and no second. The two columns that `two_columns` makes of them give a pair's label
the probability that the softmax over all words gives it.

Rows of the head are one of three kinds (paper): those of the vocabulary, frozen, as in GMR; the
same, trained (table 15); or random ones, learnt from scratch (table 3). More than two words make it
a classification of 4, 8 or 16 ways (figure 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_store.families.family import Family
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.training.config import HeadConfig, TrainingError
from model_store.training.losses import NO, YES

LIKELIEST = (
    "No",
    "Yes",
    "NO",
    "YES",
    "The",
    "None",
    "In",
    "Answer",
    "This",
    "To",
    "Not",
    "not",
    "There",
    "-no",
)
"""The words with the highest logits before training, after the two labels, in the paper's order
(appendix B.3)."""
_SPREAD = 0.02
"""Standard deviation of random rows: that of a language model's weights before training."""


class Head(nn.Module):
    """Multiplies hidden states, `[pairs, hidden]`, with its rows: fp32 logits, `[pairs, words]`."""

    def __init__(self, rows: Tensor, *, trained: bool) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.detach().float().clone(), requires_grad=trained)

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = hidden.float() @ self.rows.T
            return logits


def make_head(config: HeadConfig, vocabulary: Tensor, family: Family, seed: int) -> Head:
    """The head for a base whose output embeddings are `vocabulary`, `[words, hidden]`.

    Rows are copies: where the base ties them to its input embeddings, training the head leaves
    those as they are. Raises `TrainingError` as `head_words` does, and for a word that is not
    exactly one token.
    """
    if config.kind == "random":
        generator = torch.Generator().manual_seed(seed)
        return Head(
            torch.randn(2, vocabulary.shape[1], generator=generator) * _SPREAD, trained=True
        )

    ids = [_token(family.tokenizer, word) for word in head_words(config, labels_of(family))]
    if len(set(ids)) != len(ids):
        raise TrainingError("head.words: two words are the same token for this checkpoint.")

    return Head(vocabulary[ids], trained=config.kind == "trainable")


def labels_of(family: Family) -> tuple[str, ...]:
    """The two labels that a family's supervised read-out compares: the relevant one, the other.

    Raises `TrainingError` where the family has no such pair.
    """
    labels = family.readouts[0].labels
    if len(labels) != 2:
        raise TrainingError(f"the model family {family.name} has no two labels to be trained.")
    return labels


def head_words(config: HeadConfig, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a head's rows in order, the family's labels first; raises `TrainingError`."""
    if config.words is None:
        return (*labels, *LIKELIEST)[: config.tokens]
    if config.words[: len(labels)] != labels:
        raise TrainingError(f"head.words must begin with {' and '.join(labels)}.")
    return config.words


def two_columns(logits: Tensor, relevant: Tensor) -> Tensor:
    """Logits of any number of words as the two columns that the losses take, `[pairs, 2]`.

    The column of a pair's own label is that word's logit, the other the logarithm of the summed
    exponentials of all other words: their two-way softmax gives the label the probability that the
    softmax over all words gives it. `relevant` is `[pairs]`.
    """
    if logits.shape[1] == 2:
        return logits

    not_yes = torch.cat([logits[:, :YES], logits[:, YES + 1 :]], dim=1).logsumexp(1)
    not_no = torch.cat([logits[:, :NO], logits[:, NO + 1 :]], dim=1).logsumexp(1)
    as_yes = torch.stack([logits[:, YES], not_yes], dim=1)
    as_no = torch.stack([not_no, logits[:, NO]], dim=1)
    return torch.where(relevant[:, None], as_yes, as_no)


def _token(tokenizer: LiteralTokenizer, word: str) -> int:
    try:
        return tokenizer.label(word)
    except TokenizerMismatch as error:
        raise TrainingError(f"{error}; head.words can name others.") from None
