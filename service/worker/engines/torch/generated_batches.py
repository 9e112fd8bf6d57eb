"""Batches of pairs whose scores are written as text: token by token, until each answer has ended.

Depends on a network that writes answers and on a way to run its steps, not on calls. Invariant: an
answer that is abandoned is written no further than the step that is under way, and a row has no
answer only where the network failed for that row alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from model_store.families.generated_answer import Answer, AnswerReader
from model_store.families.prompt import Segment
from service.observability.engine_metrics import ENGINE_COMPLETION_TOKENS, ENGINE_STEPS
from service.worker.engines.isolation import attempt
from service.worker.engines.progress import count_step
from service.worker.engines.torch.batching import batch_fill
from service.worker.engines.torch.network import AnsweringNetwork, PrefixState
from service.worker.engines.torch.probe import Probe

BATCHES_AT_ONCE = 4
"""Batches that are written at a time, a step of one after a step of another. The keys of each are
held until it ends."""

RunStep = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs one step where the network may run, and counts it as progress."""


class GeneratedBatches:
    """Scores batches with a network that writes its scores.

    A batch takes at most `batch_tokens` of prompts, or is one pair. The probe tells whether the
    network still works after it has failed.
    """

    def __init__(
        self,
        network: AnsweringNetwork,
        new_reader: Callable[[], AnswerReader],
        run: RunStep,
        probe: Probe,
        batch_tokens: int,
    ) -> None:
        self._network, self._new_reader = network, new_reader
        self._run, self._probe = run, probe
        self._batch_tokens = batch_tokens
        self._places = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def answers(
        self, prefix: PrefixState, suffixes: Sequence[Segment]
    ) -> AsyncGenerator[tuple[int, Answer | None]]:
        """Yield each prompt's index and its answer, as soon as it has ended; None for a prompt that
        the network fails for.

        What a failing batch has not written is halved until the prompt is found. Raises the
        exception of a step where the network no longer works.
        """
        batches = [list(range(len(suffixes)))]
        while batches:
            left = batches.pop()
            rows = dict(enumerate(left))
            batch = self._written(prefix, [suffixes[index] for index in left])
            async with aclosing(batch) as written:
                async for row, answer in written:
                    yield rows.pop(row), answer

            failed = list(rows.values())
            if len(failed) == 1:
                yield failed[0], None
            elif failed:
                middle = len(failed) // 2
                batches += [failed[middle:], failed[:middle]]

    async def _written(
        self, prefix: PrefixState, suffixes: Sequence[Segment]
    ) -> AsyncGenerator[tuple[int, Answer]]:
        """Yield the rows of a batch whose answers have ended; it ends without the others where the
        network fails for the batch."""
        readers = [self._new_reader() for _ in suffixes]
        begin = partial(self._network.begin, prefix, suffixes, readers)
        going = set(range(len(suffixes)))
        async with self._places:
            try:
                writing = await self._step(begin)
                if writing is None:
                    return
                tokens = sum(len(suffix.ids) for suffix in suffixes)
                fill = batch_fill(prefix.tokens, suffixes, self._batch_tokens)
                count_step(len(suffixes), tokens, fill)

                while going:
                    if await self._step(writing.step) is None:
                        return
                    ENGINE_STEPS.inc()
                    for row in [row for row in going if readers[row].ended]:
                        going.remove(row)
                        yield row, readers[row].answer
                self._probe.failed = False
            finally:
                ENGINE_COMPLETION_TOKENS.inc(sum(reader.answer.tokens for reader in readers))

    async def _step(self, work: Callable[[], Any]) -> Any:
        """The result of a step; None where the network fails in it and still works."""
        return await self._run(partial(attempt, work, self._probe.works))
