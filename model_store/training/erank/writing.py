"""Answers as a network writes them: the most likely tokens, or sampled ones, several in step.

Depends on tensors and readers of answers, not on rows. Invariant: a greedy answer is that of the
service's engines, to fp32 rounding: it ends where its reader says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model_store.families.generated_answer import AnswerReader
from model_store.families.readout import GeneratedScore
from model_store.families.tokens import LiteralTokenizer

BATCH_TOKENS = 16_384
"""Tokens of prompts that are read together, padding included; a single prompt may have more."""


@dataclass(frozen=True, slots=True)
class WrittenAnswer:
    """The text of an answer, its number of tokens, and its raw score; None where it has no number
    within the bounds."""

    text: str
    tokens: int
    score: float | None


class AnswerWriter:
    """Writes answers with one network, each of at most `max_tokens`.

    With a `temperature` the tokens are sampled, by the generator of `seed`; else they are the most
    likely ones.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: LiteralTokenizer,
        readout: GeneratedScore,
        max_tokens: int | None = None,
        *,
        temperature: float | None = None,
        seed: int = 0,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self._network, self._tokenizer, self._readout = network, tokenizer, readout
        self._max_tokens = readout.max_tokens if max_tokens is None else max_tokens
        self._temperature, self._batch_tokens = temperature, batch_tokens
        self._generator = torch.Generator().manual_seed(seed)

    def write(self, prompts: Sequence[Sequence[int]]) -> Iterator[WrittenAnswer]:
        """The answer to each prompt, in order."""
        start = 0
        while start < len(prompts):
            count = self._fitting(prompts[start:])
            yield from self._batch(prompts[start : start + count])
            start += count

    def _fitting(self, prompts: Sequence[Sequence[int]]) -> int:
        """The number of first prompts that fit one batch, one at least."""
        longest = 0
        for count, prompt in enumerate(prompts):
            longest = max(longest, len(prompt))
            if count and longest * (count + 1) > self._batch_tokens:
                return count
        return len(prompts)

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[Sequence[int]]) -> list[WrittenAnswer]:
        device = self._network.device
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)

        readers = [self._reader() for _ in prompts]
        texts = ["" for _ in prompts]
        cache: Any = None
        while not all(reader.ended for reader in readers):
            output = self._network(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            tokens, logprobs = self._next(output.logits[:, -1].float())
            for row, (token, logprob) in enumerate(
                zip(tokens.tolist(), logprobs.tolist(), strict=True)
            ):
                if not readers[row].ended:
                    texts[row] += self._tokenizer.decode([token])
                    readers[row].add(token, logprob)
            ids = tokens[:, None].to(device)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = positions[:, -1:] + 1

        answers: list[WrittenAnswer] = []
        for reader, text in zip(readers, texts, strict=True):
            answers.append(WrittenAnswer(text, reader.answer.tokens, reader.answer.score))
        return answers

    def _reader(self) -> AnswerReader:
        return AnswerReader(self._tokenizer, self._readout, self._max_tokens)

    def _next(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The next token of each row, and the logarithm of its probability at temperature 1."""
        logprobs = logits.log_softmax(-1)
        if self._temperature is None:
            tokens = logprobs.argmax(-1)
        else:
            shares = (logits / self._temperature).softmax(-1).cpu()
            tokens = torch.multinomial(shares, 1, generator=self._generator)[:, 0]
            tokens = tokens.to(logits.device)
        return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]
