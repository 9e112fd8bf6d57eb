"""Batches of prompts for forward passes of the torch engine: which pairs one pass scores together.

Depends on lengths of prompts, not on a network. Invariant: all pairs of a batch share one prefix
and need the same number of attention keys, so that a logit does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from model_store.families.prompt import Prompt, Segment
from service.worker.engines.torch.shared_prefix import padded_keys

_PREFIX_SHARE = 16
"""A prefix token costs a row of the batch about a sixteenth of an own token: it is copied and
attended to, but not computed."""


def group_by_prefix(prompts: Mapping[int, Prompt]) -> list[tuple[Segment, list[int]]]:
    """Each prefix, with the indexes of the pairs that share it.

    A call has one prefix, unless the query was cut differently for some documents.
    """
    groups: dict[Segment, list[int]] = {}
    for index, prompt in prompts.items():
        groups.setdefault(prompt.prefix, []).append(index)
    return list(groups.items())


def batches(
    prompts: Mapping[int, Prompt], indexes: Sequence[int], batch_tokens: int
) -> Iterator[list[int]]:
    """The pairs at `indexes`, shortest first, in batches of about equal lengths.

    A batch takes at most `batch_tokens`, or is one pair.
    """
    batch: list[int] = []
    batch_keys = 0
    for index in sorted(indexes, key=lambda index: len(prompts[index].suffix.ids)):
        prefix_tokens, suffix_tokens = _lengths(prompts[index])
        keys = padded_keys(prefix_tokens, suffix_tokens)
        # the last row is the longest, and the others are padded to it
        tokens = (len(batch) + 1) * _row_tokens(prefix_tokens, suffix_tokens)
        if batch and (tokens > batch_tokens or keys != batch_keys):
            yield batch
            batch = []

        batch.append(index)
        batch_keys = keys
    if batch:
        yield batch


def batch_fill(prefix_tokens: int, suffixes: Sequence[Segment], batch_tokens: int) -> float:
    """The share of `batch_tokens` that a batch uses."""
    longest = max(len(suffix.ids) for suffix in suffixes)
    return len(suffixes) * _row_tokens(prefix_tokens, longest) / batch_tokens


def _lengths(prompt: Prompt) -> tuple[int, int]:
    return len(prompt.prefix.ids), len(prompt.suffix.ids)


def _row_tokens(prefix_tokens: int, suffix_tokens: int) -> int:
    """The cost of one row of a batch, in computed tokens."""
    return suffix_tokens + prefix_tokens // _PREFIX_SHARE
