"""Scores that a model writes as text, with a running vLLM engine.

Depends on vLLM's generation, not on calls or prompts. Invariant: tokens are the most likely ones,
and an answer is read as by the torch engine: it leaves the engine with its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from model_store.families.family import Family
from model_store.families.generated_answer import Answer, stop_ids
from service.observability.engine_metrics import ENGINE_COMPLETION_TOKENS
from service.worker.engines.prompts import answer_reader


class Writing:
    """Has a model write answers of at most `max_tokens`. `advance` is called with every token."""

    def __init__(
        self, llm: AsyncLLM, family: Family, max_tokens: int, advance: Callable[[], None]
    ) -> None:
        self._llm, self._advance = llm, advance
        self._new_reader = partial(answer_reader, family, max_tokens)
        self._params = SamplingParams(
            temperature=0,
            max_tokens=max_tokens,
            logprobs=0,  # of the token that is written
            ignore_eos=True,
            stop_token_ids=list(stop_ids(family.tokenizer)),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    async def answer(self, request: Mapping[str, Any]) -> tuple[Answer, Any]:
        """The answer to a request, and vLLM's last output; cancelling this takes the request out of
        the engine."""
        reader = self._new_reader()
        outputs = self._llm.generate(sampling_params=self._params, **request)
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    self._advance()
                    (written,) = output.outputs
                    for token, logprobs in zip(written.token_ids, written.logprobs, strict=True):
                        reader.add(token, logprobs[token].logprob)
                    if reader.ended:
                        break
        finally:
            ENGINE_COMPLETION_TOKENS.inc(reader.answer.tokens)
        return reader.answer, output
