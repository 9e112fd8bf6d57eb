"""Scoring with vLLM, for production: prompts of calls, and the order in which the engine gets them.

Depends on calls, prompts and one `VllmRuntime`, not on HTTP. A call's documents go through in
chunks, shortest first: while the engine works on one chunk, the next is rendered on another thread
and its new images are encoded. The query's prefix is sent with the first document, and the others
take it from the prefix cache. Invariant: a pair's logit does not depend on chunks, on order or on
other calls, and closing a call takes its unscored pairs out of the engine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.prompt import Image, NotRendered, Prompt, Segment
from service.cores import cores
from service.errors import NoWorker, WorkerFailed
from service.observability.engine_metrics import IMAGE_CACHE_LOOKUPS, ISOLATED_PAIRS
from service.wire import Refused, ScoreCall, WorkerInfo
from service.worker.engines.base import Begin, EngineRefused, PairVerdict, no_callback
from service.worker.engines.isolation import is_logit
from service.worker.engines.prompts import (
    CallRenderer,
    completion_bound,
    describe,
    pieces,
    refused,
    verdict_on,
)
from service.worker.engines.vllm.arguments import decides_scores
from service.worker.engines.vllm.chunks import chunks
from service.worker.engines.vllm.image_encoder import ImageEncoder
from service.worker.engines.vllm.installation import FindVersion, quiet, supported_version
from service.worker.engines.vllm.window import Window

if TYPE_CHECKING:
    from torch import Tensor

    from service.worker.engines.vllm.runtime import MakeLlm, VllmRuntime

_WINDOW_STEPS = 3
"""Engine steps' worth of tokens that are inside the engine at once: enough that it never waits for
prompts, and few enough that a later call is served soon."""
_RENDERING_THREADS = 4
_POLL_SECONDS = 0.5

Report = Callable[[PairVerdict], None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rendered documents by index, and the embeddings of their images that the engine lacked."""

    prompts: dict[int, Prompt | NotRendered]
    embeddings: dict[Image, Tensor]


class VllmEngine:
    """Runs a checkpoint, and LoRA adapters on top of it, in a vLLM engine of its own.

    `arguments` are engine arguments of vLLM by name. After `stall_seconds` of work without progress
    the engine reports that it is not healthy. `max_completion_tokens` bounds a score that is
    written as text; None: the read-out's bound. `find_version` gives the version of an installed
    distribution, and `make_llm` starts vLLM where that is not to have processes of its own.
    """

    def __init__(
        self,
        arguments: Mapping[str, str],
        *,
        stall_seconds: float = 60,
        max_completion_tokens: int | None = None,
        find_version: FindVersion = version,
        make_llm: MakeLlm | None = None,
    ) -> None:
        self._arguments = arguments
        self._stall_seconds = stall_seconds
        self._max_completion_tokens = max_completion_tokens
        self._find_version = find_version
        self._make_llm = make_llm
        threads = min(_RENDERING_THREADS, cores())
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prompts")
        self._loading: Future[VllmRuntime] | None = None
        self._started = False
        self._checkpoint: Checkpoint
        self._runtime: VllmRuntime
        self._window: Window
        self._encoder: ImageEncoder

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        """Start the engine, which takes from half a minute to many; raises `CannotLoad`."""
        vllm_version = supported_version(self._find_version)
        engine = f"vllm {vllm_version}, torch {version('torch').partition('+')[0]}"
        self._checkpoint = checkpoint
        self._loading = self._threads.submit(self._load, checkpoint, adapters)
        self._runtime = runtime = await asyncio.wrap_future(self._loading)
        self._window = Window(_WINDOW_STEPS * runtime.step_tokens)
        self._encoder = ImageEncoder(runtime.encode)
        await runtime.warm_up()
        self._started = True

        served: list[WorkerInfo] = []
        for adapter in (None, *adapters):
            info = describe(
                checkpoint,
                adapter,
                parts=decides_scores(self._arguments),
                max_completion_tokens=completion_bound(checkpoint, self._max_completion_tokens),
                engine=engine,
                dtype=runtime.dtype,
                device=runtime.device,
            )
            served.append(info)
        return served

    def healthy(self) -> bool:
        if not self._started:
            return True
        return not self._runtime.dead and self.stalled_seconds() <= self._stall_seconds

    def stalled_seconds(self) -> float:
        return self._runtime.stalled_seconds() if self._started else 0.0

    def ended(self) -> bool:
        return self._started and self._runtime.dead

    async def close(self) -> None:
        """End the engine, or its loading.

        Processes that vLLM has started would outlive this one until they are ready, so they are
        ended first.
        """
        loading = self._loading
        while loading and not loading.done():
            for child in multiprocessing.active_children():
                child.terminate()
            await asyncio.wait((asyncio.wrap_future(loading),), timeout=_POLL_SECONDS)

        if loading and not loading.cancelled() and not loading.exception():
            await self._in_thread(loading.result().close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        """Yield a verdict on each document; raises `NoWorker` when the engine dies."""
        verdicts: asyncio.Queue[PairVerdict | None] = asyncio.Queue()
        feeding = asyncio.create_task(self._feed(call, verdicts.put_nowait, begin))
        feeding.add_done_callback(lambda _: verdicts.put_nowait(None))
        try:
            while (verdict := await verdicts.get()) is not None:
                yield verdict
            if failure := feeding.exception():
                raise NoWorker if self._runtime.dead else failure
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def _load(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> VllmRuntime:
        quiet()
        from service.worker.engines.vllm.runtime import VllmRuntime

        bound = completion_bound(checkpoint, self._max_completion_tokens)
        return VllmRuntime(checkpoint, adapters, self._arguments, bound, self._make_llm)

    async def _feed(self, call: ScoreCall, report: Report, begin: Begin) -> None:
        """Send the engine one pair after another, as the window has room."""
        # no document comes twice in a call, so that only a query's half is shared
        shares_prefixes = self._checkpoint.family.cacheable_side == "query"
        sent_prefixes: set[Segment] = set()
        async with asyncio.TaskGroup() as pairs, aclosing(self._prepared(call)) as prepared:
            async for chunk in prepared:
                for index, prompt in chunk.prompts.items():
                    if not isinstance(prompt, Prompt):
                        report((index, refused(prompt)))
                        continue

                    cost = len(prompt.suffix.ids)
                    if not shares_prefixes or prompt.prefix not in sent_prefixes:
                        cost += len(prompt.prefix.ids)
                    if shares_prefixes:
                        sent_prefixes.add(prompt.prefix)
                    await self._window.enter(cost)
                    begin()
                    pair = pairs.create_task(
                        self._score(call, index, prompt, chunk.embeddings, report)
                    )
                    pair.add_done_callback(partial(self._leave, cost))

    def _leave(self, cost: int, _: asyncio.Task[None]) -> None:
        self._window.leave(cost)

    async def _score(
        self,
        call: ScoreCall,
        index: int,
        prompt: Prompt,
        embeddings: Mapping[Image, Tensor],
        report: Report,
    ) -> None:
        """Score one pair and report its verdict. An engine's refusal concerns this pair alone."""
        try:
            # the engine may have evicted an image since the chunk was prepared
            while missing := self._runtime.lacks(prompt.images) - embeddings.keys():
                added = await self._encoder.embeddings(missing, call.images)
                embeddings = {**embeddings, **added}
            output = await self._runtime.score(
                prompt, embeddings, adapter=call.model, salt=call.cache_salt
            )
            if output.answer.score is not None and not is_logit(output.answer.score):
                raise EngineRefused
        except EngineRefused:
            ISOLATED_PAIRS.inc()
            report((index, Refused(WorkerFailed.code)))
            return

        family = self._checkpoint.family
        report((index, verdict_on(family, prompt, output.answer, output.reused_tokens)))

    async def _prepared(self, call: ScoreCall) -> AsyncGenerator[_Chunk, None]:
        """A call's chunks, each prepared while the engine works on the one before."""
        renderer = CallRenderer(self._checkpoint, call)
        rules = self._checkpoint.family.images
        preparing: asyncio.Task[_Chunk] | None = None
        try:
            for indexes in chunks(call, self._runtime.step_tokens, rules):
                # one at a time: a renderer serves one thread
                chunk = await preparing if preparing else None
                preparing = asyncio.create_task(self._prepare(call, renderer, indexes))
                if chunk:
                    yield chunk
            if preparing:
                yield await preparing
        finally:
            if preparing:
                preparing.cancel()
                await asyncio.gather(preparing, return_exceptions=True)

    async def _prepare(
        self, call: ScoreCall, renderer: CallRenderer, indexes: Sequence[int]
    ) -> _Chunk:
        """Render the documents at `indexes` and encode the images that the engine lacks."""
        documents = [call.documents[index] for index in indexes]
        prompts: list[Prompt | NotRendered] = []
        for piece in pieces(documents):
            prompts += await self._in_thread(renderer.prompts, documents[piece.start : piece.stop])

        images: set[Image] = set()
        missing: set[Image] = set()
        for prompt in prompts:
            if isinstance(prompt, Prompt):
                images.update(prompt.images)
                missing |= self._runtime.lacks(prompt.images)
        IMAGE_CACHE_LOOKUPS.labels("hit").inc(len(images - missing))
        IMAGE_CACHE_LOOKUPS.labels("miss").inc(len(missing))

        try:
            embeddings = await self._encoder.embeddings(missing, call.images)
        except EngineRefused:
            # each pair then encodes its own images, so that only those with a bad image fail
            embeddings = {}
        return _Chunk(dict(zip(indexes, prompts, strict=True)), embeddings)

    async def _in_thread(self, work: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
