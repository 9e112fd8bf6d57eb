"""Scoring with transformers on CPU or one GPU: the embedded default, and the oracle of parity
tests.

Knows calls and batches, nothing of HTTP. One thread runs the network, another renders prompts; a
call gives way to others after every batch and after every piece of rendering, and closing it ends
both. Invariant: a pair's score does not depend on the call it came in, on a CPU not in its last
bit: rows of a batch see the shared prefix and themselves alone, and an image is encoded alike
wherever it stands. A pair that the network fails for is refused alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import ParamSpec, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.prompt import Prompt, Segment
from model_store.manifest import CheckpointUnusable
from service.cores import cores
from service.errors import WorkerFailed
from service.observability.engine_metrics import IMAGE_CACHE_LOOKUPS, ISOLATED_PAIRS
from service.observability.logs import log
from service.wire import Refused, ScoreCall, Scored, WorkerInfo
from service.worker.engines.base import (
    Begin,
    CannotLoad,
    PairVerdict,
    Progress,
    count_step,
    no_callback,
)
from service.worker.engines.isolation import attempt, is_logit, isolated
from service.worker.engines.prompts import CallRenderer, describe, pieces, refused, scored
from service.worker.engines.torch.network import Network
from service.worker.engines.torch.shared_prefix import Prefix, keys
from service.worker.settings import WorkerSettings

Args = ParamSpec("Args")
Result = TypeVar("Result")

_PREFIX_SHARE = 16
"""A prefix token costs a batch's row about a sixteenth of an own token: it is copied and attended
to, not computed."""


class TorchEngine:
    """Runs a checkpoint's network in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._network_thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._prompt_thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._progress = Progress()
        self._broken = False
        self._checkpoint: Checkpoint
        self._network: Network
        self._known_good: Prompt

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        """Load the weights; raises `CannotLoad`."""
        if adapters:
            raise CannotLoad(
                "RERANK_ADAPTERS needs RERANK_ENGINE=vllm: the torch engine serves merged"
                " checkpoints only."
            )
        # takes as long as it takes: it cannot stall
        loading = self._network_thread.submit(self._load, checkpoint)
        return [await asyncio.wrap_future(loading)]

    def healthy(self) -> bool:
        return not self._broken and self.stalled_seconds() <= self._settings.stall_seconds

    def stalled_seconds(self) -> float:
        return self._progress.stalled_seconds()

    def ended(self) -> bool:
        return False

    async def close(self) -> None:
        for thread in (self._prompt_thread, self._network_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    async def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        """A verdict on each document, shortest first; closing the generator abandons the batches
        not begun."""
        prompts: dict[int, Prompt] = {}
        renderer = CallRenderer(self._checkpoint, call)
        for piece in pieces(call.documents):
            documents = call.documents[piece.start : piece.stop]
            rendered = await self._in(self._prompt_thread, renderer.prompts, documents)
            for index, prompt in zip(piece, rendered, strict=True):
                if isinstance(prompt, Prompt):
                    prompts[index] = prompt
                else:
                    yield index, refused(prompt)
        encoded: dict[bytes, Tensor] = {}
        for segment, indexes in _by_prefix(prompts):
            prefix = await self._in(
                self._network_thread, self._read_prefix, call, segment, encoded, begin
            )
            for batch in self._batches(prompts, indexes):
                suffixes = [prompts[index].suffix for index in batch]
                logits = await self._in(
                    self._network_thread, self._score_batch, call, prefix, suffixes, encoded
                )
                for index, logit in zip(batch, logits, strict=True):
                    yield index, self._verdict(prompts[index], logit)

    async def _in(
        self,
        thread: ThreadPoolExecutor,
        work: Callable[Args, Result],
        *args: Args.args,
        **kwargs: Args.kwargs,
    ) -> Result:
        future = thread.submit(work, *args, **kwargs)
        self._progress.begin()
        future.add_done_callback(lambda ended: self._progress.end(done=not ended.cancelled()))
        return await asyncio.wrap_future(future)

    def _load(self, checkpoint: Checkpoint) -> WorkerInfo:
        settings = self._settings
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise CannotLoad("RERANK_DEVICE is cuda, but this machine has no usable GPU.")
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        device, dtype = (
            (torch.device("cuda"), torch.bfloat16)
            if on_gpu
            else (torch.device("cpu"), torch.float32)
        )
        torch.set_num_threads(settings.threads or cores())
        try:
            self._network = Network(checkpoint, device, dtype)
        except CheckpointUnusable:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CannotLoad(
                f"{settings.model}: the weights cannot be loaded ({type(error).__name__})."
            ) from error
        self._checkpoint = checkpoint
        known_call = ScoreCall(checkpoint.name, None, ["a"], [["b"]], [], truncate=True)
        (known_good,) = CallRenderer(checkpoint, known_call).prompts(known_call.documents)
        assert isinstance(known_good, Prompt)
        self._known_good = known_good
        engine = (
            f"torch {torch.__version__.partition('+')[0]}, transformers {version('transformers')}"
        )
        kind = str(dtype).removeprefix("torch.")
        return describe(checkpoint, parts=(), engine=engine, dtype=kind, device=device.type)

    def _read_prefix(
        self, call: ScoreCall, segment: Segment, encoded: dict[bytes, Tensor], begin: Begin
    ) -> tuple[Prefix, int] | None:
        """A prefix as the network reads it; None where it cannot, and can read others."""
        begin()

        def read() -> tuple[Prefix, int]:
            self._encode(call, [segment], encoded)
            return self._network.read_prefix(segment, encoded)

        return attempt(read, self._works)

    def _score_batch(
        self,
        call: ScoreCall,
        prefix: tuple[Prefix, int] | None,
        suffixes: Sequence[Segment],
        encoded: dict[bytes, Tensor],
    ) -> Sequence[float | None]:
        """A logit for each suffix; None where the network has none for it, and has one for
        others."""
        if prefix is None:
            return [None] * len(suffixes)

        def score(some: Sequence[Segment]) -> list[float]:
            self._encode(call, some, encoded)
            logits = self._network.score(*prefix, some, encoded)
            count_step(
                len(some),
                sum(len(suffix.ids) for suffix in some),
                self._used(prefix[0].tokens, some),
            )
            return logits

        logits = isolated(suffixes, score, self._works)
        self._broken = False
        return logits

    def _works(self) -> bool:
        """Whether the network still scores a pair that it scored when it was loaded."""
        self._network.release_memory()
        try:
            start = self._network.read_prefix(self._known_good.prefix, {})
            self._broken = not all(
                map(is_logit, self._network.score(*start, [self._known_good.suffix], {}))
            )
        except Exception as failure:  # of any kind, as above
            self._broken = True
            log("the network has failed", logging.ERROR, failure=failure)
        return not self._broken

    def _verdict(self, prompt: Prompt, logit: float | None) -> Scored | Refused:
        if logit is not None:
            return scored(self._checkpoint.family, prompt, logit)
        ISOLATED_PAIRS.inc()
        return Refused(WorkerFailed.code)

    def _encode(
        self, call: ScoreCall, segments: Sequence[Segment], encoded: dict[bytes, Tensor]
    ) -> None:
        """Encode the segments' images that were not met before in this call."""
        shown = {image.key for segment in segments for image in segment.images}
        needed = shown - encoded.keys()
        new = {image.digest: image for image in call.images if image.digest in needed}
        IMAGE_CACHE_LOOKUPS.labels("hit").inc(len(shown) - len(needed))
        IMAGE_CACHE_LOOKUPS.labels("miss").inc(len(needed))
        if new:
            encoded |= zip(new, self._network.encode(list(new.values())), strict=True)

    def _used(self, before: int, suffixes: Sequence[Segment]) -> float:
        """The share of a batch's budget that suffixes take after a prefix of so many tokens."""
        longest = max(len(suffix.ids) for suffix in suffixes)
        return len(suffixes) * (longest + before // _PREFIX_SHARE) / self._settings.batch_tokens

    def _batches(self, prompts: dict[int, Prompt], indexes: Sequence[int]) -> Iterator[list[int]]:
        """Runs of pairs of about equal length, as many as one forward pass should take, all with as
        many keys."""
        batch: list[int] = []
        seen = 0
        for index in sorted(indexes, key=lambda index: len(prompts[index].suffix.ids)):
            before, own = len(prompts[index].prefix.ids), len(prompts[index].suffix.ids)
            a_row = own + before // _PREFIX_SHARE
            if batch and (
                (len(batch) + 1) * a_row > self._settings.batch_tokens or keys(before, own) != seen
            ):
                yield batch
                batch = []
            batch.append(index)
            seen = keys(before, own)
        if batch:
            yield batch


def _by_prefix(prompts: dict[int, Prompt]) -> list[tuple[Segment, list[int]]]:
    """The pairs that share each prefix: one group, but where a query was cut differently for some
    documents."""
    groups: dict[Segment, list[int]] = {}
    for index, prompt in prompts.items():
        groups.setdefault(prompt.prefix, []).append(index)
    return list(groups.items())
