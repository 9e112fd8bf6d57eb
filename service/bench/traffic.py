"""Which requests the callers of a sample send: every contender gets the same, and none was sent
before, but for R's repeats.

Knows workloads and seeds, no servers. Invariant: two samples share a pair in workload R alone, and
there a request repeats half of the one before it of the same caller, whoever is asked.
"""

from __future__ import annotations

from model_store.families.tokens import LiteralTokenizer
from service.bench import workloads
from service.bench.workloads import Request, make_request

DESCRIPTIONS = workloads.DESCRIPTIONS | {
    "R": (
        "300-token query side x texts and images, half of them as in the request before; score"
        " cache on"
    )
}
WARM_UP = -1
"""The sample that is not counted."""


def requests(
    letter: str, documents: int, callers: int, sample: int, tokenizer: LiteralTokenizer
) -> list[Request]:
    """One request for each caller. `sample` counts from 0; before it comes `WARM_UP`."""
    if letter == "R":
        return [
            _repeating(documents, callers * 1_000 + caller, sample - WARM_UP, tokenizer)
            for caller in range(callers)
        ]
    seeds = ((callers * 10_000 + sample - WARM_UP) * 1_000 + caller for caller in range(callers))
    return [make_request(letter, documents, seed, tokenizer) for seed in seeds]


def _repeating(documents: int, seed: int, step: int, tokenizer: LiteralTokenizer) -> Request:
    """One query whose candidates move on by half of their number from step to step."""
    new = (documents + 1) // 2
    start, end = step * new, step * new + documents
    texts, pictures = (make_request(letter, end // 2 + 1, seed, tokenizer) for letter in ("T", "C"))
    candidates = [(texts, pictures)[place % 2].documents[place // 2] for place in range(start, end)]
    return Request(texts.query, candidates, cache="use", repeated=documents - new if step else 0)
