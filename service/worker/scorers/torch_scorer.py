"""Scoring with transformers on CPU or one GPU: the embedded default, and the oracle of parity tests.

Knows calls and batches, nothing of HTTP. One thread runs the network, another renders prompts; a call gives way to others after
every batch. Invariant: a pair's score does not depend on the call it came in: rows of a batch see the shared prefix and
themselves alone, and an image is encoded alike wherever it stands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import ParamSpec, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from model_store.families.prompt import Prompt, Segment
from model_store.manifest import CheckpointUnusable
from model_store.registry import Adapter, Checkpoint
from service.contracts import Refused, ScoreCall, WorkerInfo
from service.errors import PairTooLong
from service.telemetry import BATCH_TOKENS
from service.worker.scorers.base import CannotLoad, Verdict
from service.worker.scorers.network import Network
from service.worker.scorers.prompts import describe, render, scored
from service.worker.settings import WorkerSettings

Args = ParamSpec("Args")
Result = TypeVar("Result")

_PREFIX_SHARE = 16
"""A prefix token costs a batch's row about a sixteenth of an own token: it is copied and attended to, not computed."""


class TorchScorer:
    """Runs a checkpoint's network in this process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._network_thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._prompt_thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._checkpoint: Checkpoint
        self._network: Network

    async def start(self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()) -> list[WorkerInfo]:
        """Load the weights; raises `CannotLoad`."""
        if adapters:
            raise CannotLoad("RERANK_ADAPTERS needs RERANK_ENGINE=vllm: the torch engine serves merged checkpoints only.")
        return [await self._in(self._network_thread, self._load, checkpoint)]

    def healthy(self) -> bool:
        return True

    def ended(self) -> bool:
        return False

    async def close(self) -> None:
        for thread in (self._prompt_thread, self._network_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    async def score(self, call: ScoreCall) -> AsyncGenerator[Verdict, None]:
        """A verdict on each document, shortest first; closing the generator abandons the batches not begun."""
        rendered = await self._in(self._prompt_thread, render, self._checkpoint, call, call.documents)
        prompts = {index: prompt for index, prompt in enumerate(rendered) if isinstance(prompt, Prompt)}
        for index in range(len(rendered)):
            if index not in prompts:
                yield index, Refused(PairTooLong.code)
        encoded: dict[bytes, Tensor] = {}
        for segment, indexes in _by_prefix(prompts):
            await self._in(self._network_thread, self._encode, call, [segment], encoded)
            prefix, start = await self._in(self._network_thread, self._network.read_prefix, segment, encoded)
            for batch in self._batches(prompts, indexes):
                suffixes = [prompts[index].suffix for index in batch]
                await self._in(self._network_thread, self._encode, call, suffixes, encoded)
                logits = await self._in(self._network_thread, self._network.score, prefix, start, suffixes, encoded)
                BATCH_TOKENS.observe(sum(len(suffix.ids) for suffix in suffixes))
                for index, logit in zip(batch, logits, strict=True):
                    yield index, scored(prompts[index], logit)

    async def _in(
        self, thread: ThreadPoolExecutor, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs
    ) -> Result:
        return await asyncio.get_running_loop().run_in_executor(thread, lambda: work(*args, **kwargs))

    def _load(self, checkpoint: Checkpoint) -> WorkerInfo:
        settings = self._settings
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise CannotLoad("RERANK_DEVICE is cuda, but this machine has no usable GPU.")
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        device, dtype = (torch.device("cuda"), torch.bfloat16) if on_gpu else (torch.device("cpu"), torch.float32)
        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
        try:
            self._network = Network(checkpoint, device, dtype)
        except CheckpointUnusable:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CannotLoad(f"{settings.model}: the weights cannot be loaded ({type(error).__name__}).") from error
        self._checkpoint = checkpoint
        engine = f"torch {torch.__version__.partition('+')[0]}, transformers {version('transformers')}"
        kind = str(dtype).removeprefix("torch.")
        return describe(checkpoint, name=checkpoint.name, parts=(), engine=engine, dtype=kind, device=device.type)

    def _encode(self, call: ScoreCall, segments: Sequence[Segment], encoded: dict[bytes, Tensor]) -> None:
        """Encode the segments' images that were not met before in this call."""
        needed = {image.key for segment in segments for image in segment.images} - encoded.keys()
        new = {image.digest: image for image in call.images if image.digest in needed}
        if new:
            encoded |= zip(new, self._network.encode(list(new.values())), strict=True)

    def _batches(self, prompts: dict[int, Prompt], indexes: Sequence[int]) -> Iterator[list[int]]:
        """Runs of pairs of about equal length, as many as one forward pass should take."""
        batch: list[int] = []
        for index in sorted(indexes, key=lambda index: len(prompts[index].suffix.ids)):
            prompt = prompts[index]
            a_row = len(prompt.suffix.ids) + len(prompt.prefix.ids) // _PREFIX_SHARE
            if batch and (len(batch) + 1) * a_row > self._settings.batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _by_prefix(prompts: dict[int, Prompt]) -> list[tuple[Segment, list[int]]]:
    """The pairs that share each prefix: one group, but where a query was cut differently for some documents."""
    groups: dict[Segment, list[int]] = {}
    for index, prompt in prompts.items():
        groups.setdefault(prompt.prefix, []).append(index)
    return list(groups.items())
