"""Scoring with vLLM, for production: what a call is made into, and in which order the engine gets
it.

Knows calls, prompts and one `VllmRuntime`, nothing of HTTP. A call's documents go through in
chunks, shortest first: while the engine works on one chunk, the next is rendered on another thread
and its new images are encoded. The query's prefix goes in with the first document and is in the
prefix cache for all others. Invariant: a pair's logit does not depend on chunks, order or company,
and closing a call takes its unscored pairs out of the engine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.family import ImageRules
from model_store.families.prompt import Image, Prompt, Segment
from model_store.families.prompt import PairTooLong as TooLong
from service.cores import cores
from service.errors import NoWorker, WorkerFailed
from service.observability.engine_metrics import IMAGE_CACHE_LOOKUPS, ISOLATED_PAIRS
from service.wire import Pixels, Refused, ScoreCall, WireItem, WorkerInfo
from service.worker.engines.base import Begin, EngineRefused, PairVerdict, no_callback
from service.worker.engines.isolation import is_logit
from service.worker.engines.prompts import CallRenderer, describe, image, pieces, refused, scored
from service.worker.engines.vllm.arguments import decides_scores, quiet, supported_version
from service.worker.engines.vllm.window import Window
from service.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from torch import Tensor

    from service.worker.engines.vllm.runtime import VllmRuntime

_STEPS_AHEAD = 3
"""Engine steps' worth of tokens that are inside the engine at once: enough that it never waits for
us, and no more, so that a call that comes later is soon served."""
_FIRST_SHARE = 4
"""The first chunk of a call is this much smaller than a step, so that the engine begins early."""
_CHARACTERS_A_TOKEN = 4
"""Of English; of other texts each character counts as one."""
_RENDERING_THREADS = 4
_LOOK_SECONDS = 0.5

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some of a call's documents by index, rendered, with the embeddings of those of their images
    that the engine lacked."""

    prompts: dict[int, Prompt | TooLong]
    embeddings: dict[Image, Tensor]


class VllmEngine:
    """Runs a checkpoint, and LoRA adapters on top of it, in a vLLM engine of its own."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        threads = min(_RENDERING_THREADS, cores())
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prompts")
        self._loading: Future[VllmRuntime] | None = None
        self._started = False
        self._runtime: VllmRuntime
        self._checkpoint: Checkpoint
        self._window: Window
        self._encoding: dict[Image, asyncio.Future[dict[Image, Tensor]]] = {}

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        """Start the engine, which takes from half a minute to many; raises `CannotLoad`."""
        engine_version = supported_version()
        self._checkpoint = checkpoint
        self._loading = self._threads.submit(self._load, checkpoint, adapters)
        self._runtime = runtime = await asyncio.wrap_future(self._loading)
        self._window = Window(_STEPS_AHEAD * runtime.step_tokens)
        await runtime.warm_up()
        self._started = True

        def info(adapter: Adapter | None = None) -> WorkerInfo:
            return describe(
                checkpoint,
                adapter,
                parts=decides_scores(self._settings.engine_arguments),
                engine=f"vllm {engine_version}, torch {version('torch').partition('+')[0]}",
                dtype=runtime.dtype,
                device=runtime.device,
            )

        return [info(), *map(info, adapters)]

    def healthy(self) -> bool:
        if not self._started:
            return True
        return not self._runtime.dead and self.stalled_seconds() <= self._settings.stall_seconds

    def stalled_seconds(self) -> float:
        return self._runtime.stalled_seconds() if self._started else 0.0

    def ended(self) -> bool:
        return self._started and self._runtime.dead

    async def close(self) -> None:
        """End the engine, or its loading: vLLM's processes would not notice that this one is gone
        before they are ready."""
        loading = self._loading
        while loading and not loading.done():
            for child in multiprocessing.active_children():
                child.terminate()
            await asyncio.wait((asyncio.wrap_future(loading),), timeout=_LOOK_SECONDS)
        if loading and not loading.cancelled() and not loading.exception():
            await self._in_thread(loading.result().close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        """A verdict on each document, as they come; raises `NoWorker` when the engine dies."""
        told: asyncio.Queue[PairVerdict | None] = asyncio.Queue()
        feeding = asyncio.create_task(self._feed(call, told.put_nowait, begin))
        feeding.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (verdict := await told.get()) is not None:
                yield verdict
            if failure := feeding.exception():
                raise NoWorker if self._runtime.dead else failure
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def _load(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> VllmRuntime:
        quiet()
        from service.worker.engines.vllm.runtime import VllmRuntime

        return VllmRuntime(checkpoint, adapters, self._settings.engine_arguments)

    async def _feed(
        self, call: ScoreCall, tell: Callable[[PairVerdict], None], begin: Begin
    ) -> None:
        """Hand the engine one pair after the other, as it has room."""
        met: set[Segment] = set()
        async with asyncio.TaskGroup() as pairs, aclosing(self._prepared(call)) as chunks:
            async for chunk in chunks:
                for index, prompt in chunk.prompts.items():
                    if isinstance(prompt, TooLong):
                        tell((index, refused(prompt)))
                        continue
                    cost = len(prompt.suffix.ids) + (
                        0 if prompt.prefix in met else len(prompt.prefix.ids)
                    )
                    met.add(prompt.prefix)
                    await self._window.enter(cost)
                    begin()
                    pair = pairs.create_task(
                        self._score(call, index, prompt, chunk.embeddings, tell)
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
        tell: Callable[[PairVerdict], None],
    ) -> None:
        """One pair. What the engine cannot do with it concerns this pair alone."""
        try:
            # the engine let go of an image meanwhile
            while missing := self._runtime.lacks(prompt.images) - embeddings.keys():
                embeddings = {**embeddings, **await self._encoded(call, missing)}
            output = await self._runtime.logit(
                prompt, embeddings, adapter=call.model, salt=call.cache_salt
            )
            if not is_logit(output.logit):
                raise EngineRefused
        except EngineRefused:
            ISOLATED_PAIRS.inc()
            tell((index, Refused(WorkerFailed.code)))
        else:
            tell(
                (index, scored(self._checkpoint.family, prompt, output.logit, output.reused_tokens))
            )

    async def _prepared(self, call: ScoreCall) -> AsyncGenerator[_Chunk, None]:
        """A call's chunks, each prepared while the one before is worked on."""
        ahead: asyncio.Task[_Chunk] | None = None
        renderer = CallRenderer(self._checkpoint, call)
        try:
            rules = self._checkpoint.family.images
            for following in (*_chunks(call, self._runtime.step_tokens, rules), None):
                chunk = await ahead if ahead else None
                ahead = (
                    asyncio.create_task(self._prepare(call, renderer, following))
                    if following
                    else None
                )
                if chunk:
                    yield chunk
        finally:
            if ahead:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _prepare(
        self, call: ScoreCall, renderer: CallRenderer, indexes: Sequence[int]
    ) -> _Chunk:
        documents = [call.documents[index] for index in indexes]
        prompts: list[Prompt | TooLong] = []
        for piece in pieces(documents):
            prompts += await self._in_thread(renderer.prompts, documents[piece.start : piece.stop])
        readable = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
        missing = set[Image]().union(*(self._runtime.lacks(prompt.images) for prompt in readable))
        IMAGE_CACHE_LOOKUPS.labels("hit").inc(
            len({shown for prompt in readable for shown in prompt.images} - missing)
        )
        IMAGE_CACHE_LOOKUPS.labels("miss").inc(len(missing))
        try:
            embeddings = await self._encoded(call, missing)
        except EngineRefused:  # which of them it was shows when each pair asks for its own
            embeddings = {}
        return _Chunk(dict(zip(indexes, prompts, strict=True)), embeddings)

    async def _encoded(self, call: ScoreCall, images: Collection[Image]) -> dict[Image, Tensor]:
        """Embeddings of some of a call's images. What another call is having encoded is waited
        for."""
        wanted = set(images) - self._encoding.keys()
        new = (
            {shown: pixels.rgb for pixels in call.images if (shown := image(pixels)) in wanted}
            if wanted
            else {}
        )
        if new:
            encoding = asyncio.ensure_future(self._runtime.encode(new))
            self._encoding |= dict.fromkeys(new, encoding)
            encoding.add_done_callback(lambda _: [self._encoding.pop(shown, None) for shown in new])
        under_way = {self._encoding[shown] for shown in images}
        found = await asyncio.gather(*map(asyncio.shield, under_way))
        return {shown: rows for embeddings in found for shown, rows in embeddings.items()}

    async def _in_thread(self, work: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args))


def _chunks(call: ScoreCall, step_tokens: int, rules: ImageRules | None) -> Iterator[list[int]]:
    """A call's documents, shortest first, in runs of about a step's tokens; the first is
    shorter."""
    chunk: list[int] = []
    limit, filled = step_tokens // _FIRST_SHARE, 0
    sizes = [_about(document, call.images, rules) for document in call.documents]
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        if chunk and filled + sizes[index] > limit:
            yield chunk
            limit, chunk, filled = step_tokens, [], 0
        chunk.append(index)
        filled += sizes[index]
    if chunk:
        yield chunk


def _about(document: WireItem, images: Sequence[Pixels], rules: ImageRules | None) -> int:
    """A document's length in tokens, estimated from sizes alone."""
    tokens = 0
    for part in document:
        if isinstance(part, str):
            tokens += len(part) // _CHARACTERS_A_TOKEN if part.isascii() else len(part)
        elif rules:
            tokens += rules.tokens(image(images[part]))
    return tokens
