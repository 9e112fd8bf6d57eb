"""The requests that the callers of a sample send: the same ones to every contender.

Depends on workloads and seeds, on no server. Invariant: two samples share a pair in workload R
alone, where a caller's request repeats half of the one before it, whichever contender receives it.
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
"""The number of the sample that is not counted."""


def requests(
    letter: str, documents: int, callers: int, sample: int, tokenizer: LiteralTokenizer
) -> list[Request]:
    """One request for each caller. Samples count from 0; `WARM_UP` comes before them."""
    step = sample - WARM_UP
    made = []
    for caller in range(callers):
        if letter == "R":
            made.append(_repeating(documents, callers * 1_000 + caller, step, tokenizer))
        else:
            seed = (callers * 10_000 + step) * 1_000 + caller
            made.append(make_request(letter, documents, seed, tokenizer))
    return made


def _repeating(documents: int, seed: int, step: int, tokenizer: LiteralTokenizer) -> Request:
    """One query whose candidates, texts and pictures in turns, move on by half of their number from
    step to step."""
    new = (documents + 1) // 2
    start = step * new
    end = start + documents

    texts = make_request("T", end // 2 + 1, seed, tokenizer)
    pictures = make_request("C", end // 2 + 1, seed, tokenizer)
    candidates = []
    for index in range(start, end):
        source = pictures if index % 2 else texts
        candidates.append(source.documents[index // 2])
    return Request(texts.query, candidates, cache="use", repeated=documents - new if step else 0)
