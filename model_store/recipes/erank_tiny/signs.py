"""Training of the base: yes or no at the end of each word of a document, whether the query has it.

Depends on prompts and losses, not on files. Invariant: no stage of the base asks for a thought, a
number or an answer, and the embeddings stay as they were initialised.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from model_store.families.family import Family
from model_store.families.prompt import Prompt
from model_store.synthetic import cells
from model_store.synthetic.examples import Example
from model_store.synthetic.lexical import STOPWORDS

Report = Callable[[str], None]

DOCUMENTS = 10
"""Of a query in a step."""
REPORT_EVERY = 20
_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
_BEFORE, _BEHIND = "Here is the document:\n", "\n\nAfter thinking, directly"
"""Texts of the prompt around the document."""
_SIGN_SCALE = 0.28
"""Of a sign's logit, so that the first ones are small: the head's rows are large."""


@dataclass(frozen=True, slots=True)
class SignBatch:
    """`[rows, tokens]` ids; flat indexes of words' last tokens, and 1.0 for a word that the query
    has."""

    ids: Tensor
    signs: Tensor
    truths: Tensor


class SignBatcher:
    """Makes batches of generated text queries for one family; prompts end with the document."""

    def __init__(self, family: Family, tokenizer: Tokenizer) -> None:
        self._family = family
        self._pieces = [
            tokenizer.decode([token], skip_special_tokens=False)
            for token in range(tokenizer.get_vocab_size())
        ]

    def batches(self, queries: int, seed: int) -> Iterator[SignBatch]:
        """Batches of so many queries, without an end."""
        rng = Random(f"erank/signs/{seed}")
        while True:
            rows: list[tuple[list[int], list[tuple[int, bool]]]] = []
            for _ in range(queries):
                plain = rng.random() < 0.5
                rows += self._rows(cells.sample("T-T", rng, "train", DOCUMENTS - 1, plain=plain))
            yield _batch(rows)

    def _rows(self, example: Example) -> Iterator[tuple[list[int], list[tuple[int, bool]]]]:
        """The ids of each pair up to its document's end, and (token, truth) of its words."""
        query, documents = _texts(example.query), [_texts(each) for each in example.documents]
        for prompt in self._family.render((example.instruction,), query, documents):
            assert isinstance(prompt, Prompt), "generated examples are short"
            ids = [*prompt.prefix.ids, *prompt.suffix.ids]
            pieces = [self._pieces[token] for token in ids]
            ends = {end: token for token, end in enumerate(accumulate(map(len, pieces)))}
            text = "".join(pieces)
            begin, end = text.index(_BEFORE) + len(_BEFORE), text.rindex(_BEHIND)

            signs: list[tuple[int, bool]] = []
            for match in _WORD.finditer(text, begin, end):
                word = match.group().lower()
                if word not in STOPWORDS and match.end() in ends:
                    signs.append((ends[match.end()], word in example.evidence))
            cut = max(token for position, token in ends.items() if position <= end) + 1
            yield ids[:cut], signs


def _texts(side: Sequence[Any]) -> tuple[str, ...]:
    return tuple(part for part in side if isinstance(part, str))


def _batch(rows: Sequence[tuple[list[int], list[tuple[int, bool]]]]) -> SignBatch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    signs: list[int] = []
    truths: list[float] = []
    for row, (own, found) in enumerate(rows):
        ids[row, : len(own)] = torch.tensor(own)
        signs += [row * longest + token for token, _ in found]
        truths += [float(truth) for _, truth in found]
    return SignBatch(ids, torch.tensor(signs), torch.tensor(truths))


def learn_signs(
    network: Any,
    batches: Iterator[SignBatch],
    labels: tuple[int, int],
    *,
    steps: int,
    report: Report,
    rate: float = 1e-3,
    warmup: int = 50,
) -> None:
    """Train the network on signs, read after each of its last two layers; `labels` are the ids of
    yes and no."""
    embeddings = network.get_input_embeddings().weight.requires_grad_(False)
    row = (embeddings[labels[0]] - embeddings[labels[1]]) * _SIGN_SCALE
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    others = [parameter for parameter in trained if parameter.ndim != 2]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"), rate),
        (torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0), rate / 2),
    ]
    for step in range(1, steps + 1):
        loss = _loss(network, next(batches), row)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is not finite at step {step}")

        share = step / warmup
        if step >= warmup:
            progress = (step - warmup) / max(1, steps - warmup)
            share = 0.05 + 0.475 * (1 + math.cos(math.pi * progress))
        network.zero_grad(set_to_none=True)
        (8.0 * loss).backward()
        for optimizer, top in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = top * share
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            optimizer.step()
        if step % REPORT_EVERY == 0:
            report(f"signs {step}/{steps}: loss {loss.item():.3f}")


def _loss(network: Any, batch: SignBatch, row: Tensor) -> Tensor:
    states = network.model(input_ids=batch.ids, output_hidden_states=True, use_cache=False)
    earlier = network.model.norm(states.hidden_states[-2])
    logits: list[Tensor] = []
    for hidden in (earlier, states.last_hidden_state):
        logits.append(hidden.flatten(0, 1)[batch.signs] @ row)
    found = torch.stack(logits)
    return binary_cross_entropy_with_logits(
        found, batch.truths.expand_as(found), pos_weight=torch.tensor(3.0)
    )
