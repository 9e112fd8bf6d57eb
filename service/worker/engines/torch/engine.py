"""Scoring with transformers on a CPU or one GPU: the embedded default, and the oracle of parity
tests.

Depends on calls and batches, not on HTTP. One thread runs the network and another renders prompts.
A call gives way to others after every batch and every piece of rendering, and closing it ends both.
Invariant: a pair's score does not depend on the call that it came in, and on a CPU not even in its
last bit: the rows of a batch attend to the shared prefix and to themselves alone, and an image is
encoded the same way in every call. A pair that the network fails for is refused alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from importlib.metadata import version
from typing import Literal, ParamSpec, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.generated_answer import Answer
from model_store.families.prompt import Prompt, Segment
from model_store.manifest import CheckpointUnusable
from service.cores import cores
from service.errors import WorkerFailed
from service.observability.engine_metrics import IMAGE_CACHE_LOOKUPS, ISOLATED_PAIRS
from service.wire import Refused, ScoreCall, Scored, WorkerInfo
from service.worker.engines.base import Begin, CannotLoad, PairVerdict, no_callback
from service.worker.engines.isolation import attempt, isolated
from service.worker.engines.progress import Progress, count_step
from service.worker.engines.prompts import (
    CallRenderer,
    answer_reader,
    completion_bound,
    describe,
    pieces,
    refused,
    verdict_on,
)
from service.worker.engines.torch.batching import batch_fill, batches, group_by_prefix
from service.worker.engines.torch.generated_batches import GeneratedBatches
from service.worker.engines.torch.network import (
    AnsweringNetwork,
    Network,
    PrefixState,
    open_network,
)
from service.worker.engines.torch.probe import Probe

Args = ParamSpec("Args")
Result = TypeVar("Result")

LoadNetwork = Callable[[Checkpoint, torch.device, torch.dtype], Network | AnsweringNetwork]


class TorchEngine:
    """Runs a checkpoint's network in this process.

    With 0 `threads` the network uses one per core. A forward pass takes at most `batch_tokens`, or
    one pair. After `stall_seconds` of work without progress the engine reports that it is not
    healthy. `max_completion_tokens` bounds a score that is written as text; None: the read-out's
    bound. `load_network` reads the weights.
    """

    def __init__(
        self,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 0,
        batch_tokens: int = 1024,
        stall_seconds: float = 60,
        max_completion_tokens: int | None = None,
        load_network: LoadNetwork = open_network,
    ) -> None:
        self._device: Literal["auto", "cpu", "cuda"] = device
        self._threads = threads
        self._batch_tokens = batch_tokens
        self._stall_seconds = stall_seconds
        self._max_completion_tokens = max_completion_tokens
        self._load_network = load_network

        self._network_thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._prompt_thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._progress = Progress()
        self._checkpoint: Checkpoint
        self._network: Network | AnsweringNetwork
        self._generated: GeneratedBatches | None = None
        self._probe: Probe | None = None

    async def start(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter] = ()
    ) -> list[WorkerInfo]:
        """Load the weights; raises `CannotLoad`."""
        if adapters:
            raise CannotLoad(
                "RERANK_ADAPTERS needs RERANK_ENGINE=vllm: the torch engine serves merged"
                " checkpoints only."
            )
        # not counted as progress: loading may take longer than a stall
        loading = self._network_thread.submit(self._load, checkpoint)
        return [await asyncio.wrap_future(loading)]

    def healthy(self) -> bool:
        failed = self._probe is not None and self._probe.failed
        return not failed and self.stalled_seconds() <= self._stall_seconds

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
        """Yield a verdict on each document, shortest first.

        Closing the generator abandons the batches that have not begun.
        """
        prompts: dict[int, Prompt] = {}
        renderer = CallRenderer(self._checkpoint, call)
        for piece in pieces(call.documents):
            documents = call.documents[piece.start : piece.stop]
            rendered = await self._run(self._prompt_thread, renderer.prompts, documents)
            for index, prompt in zip(piece, rendered, strict=True):
                if isinstance(prompt, Prompt):
                    prompts[index] = self._split(prompt)
                else:
                    yield index, refused(prompt)

        embeddings: dict[bytes, Tensor] = {}
        for segment, indexes in group_by_prefix(prompts):
            prefix = await self._run(
                self._network_thread, self._read_prefix, call, segment, embeddings, begin
            )
            for batch in batches(prompts, indexes, self._batch_tokens):
                suffixes = [prompts[index].suffix for index in batch]
                answers = self._answers(call, prefix, suffixes, embeddings)
                async with aclosing(answers) as ended:
                    async for row, answer in ended:
                        index = batch[row]
                        yield index, self._verdict(prompts[index], answer)

    async def _answers(
        self,
        call: ScoreCall,
        prefix: PrefixState | None,
        suffixes: Sequence[Segment],
        embeddings: dict[bytes, Tensor],
    ) -> AsyncGenerator[tuple[int, Answer | None]]:
        """Yield each suffix's index and its score, computed or written; None where the network
        fails for it."""
        if prefix is not None and self._generated:
            async with aclosing(self._generated.answers(prefix, suffixes)) as answers:
                async for answer in answers:
                    yield answer
            return

        logits: Sequence[float | None] = [None] * len(suffixes)
        if prefix is not None:
            logits = await self._run(
                self._network_thread, self._score_batch, call, prefix, suffixes, embeddings
            )
        for row, logit in enumerate(logits):
            yield row, None if logit is None else Answer(logit, 0)

    def _split(self, prompt: Prompt) -> Prompt:
        """The prompt with a prefix that the call's other pairs share, or none.

        No document comes twice in a call, so that a document's keys are of use to one pair alone.
        """
        if self._checkpoint.family.cacheable_side == "query":
            return prompt

        whole = Segment(prompt.ids, prompt.images, prompt.types)
        return Prompt(Segment(()), whole, prompt.truncated)

    async def _run(
        self,
        thread: ThreadPoolExecutor,
        work: Callable[Args, Result],
        *args: Args.args,
        **kwargs: Args.kwargs,
    ) -> Result:
        """Run `work` on a thread and count it as progress."""
        future = thread.submit(work, *args, **kwargs)
        self._progress.begin()
        future.add_done_callback(self._count_end)
        return await asyncio.wrap_future(future)

    def _count_end(self, ended: Future[Result]) -> None:
        self._progress.end(done=not ended.cancelled())

    def _load(self, checkpoint: Checkpoint) -> WorkerInfo:
        if self._device == "cuda" and not torch.cuda.is_available():
            raise CannotLoad("RERANK_DEVICE is cuda, but this machine has no usable GPU.")
        if self._device != "cpu" and torch.cuda.is_available():
            device, dtype = torch.device("cuda"), torch.bfloat16
        else:
            device, dtype = torch.device("cpu"), torch.float32

        torch.set_num_threads(self._threads or cores())
        try:
            self._network = self._load_network(checkpoint, device, dtype)
        except CheckpointUnusable:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CannotLoad(
                f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__})."
            ) from error

        self._checkpoint = checkpoint
        bound = completion_bound(checkpoint, self._max_completion_tokens)
        new_reader = partial(answer_reader, checkpoint.family, bound)
        self._probe = probe = Probe(checkpoint, self._network, new_reader)
        if isinstance(self._network, AnsweringNetwork):
            run = partial(self._run, self._network_thread)
            self._generated = GeneratedBatches(
                self._network, new_reader, run, probe, self._batch_tokens
            )
        return describe(
            checkpoint,
            parts=(),
            max_completion_tokens=bound,
            engine=(
                f"torch {torch.__version__.partition('+')[0]},"
                f" transformers {version('transformers')}"
            ),
            dtype=str(dtype).removeprefix("torch."),
            device=device.type,
        )

    def _read_prefix(
        self, call: ScoreCall, segment: Segment, embeddings: dict[bytes, Tensor], begin: Begin
    ) -> PrefixState | None:
        """The prefix's keys and values; None where the network fails for this prefix alone."""
        begin()

        def read() -> PrefixState:
            self._encode(call, [segment], embeddings)
            return self._network.read_prefix(segment, embeddings)

        assert self._probe
        return attempt(read, self._probe.works)

    def _score_batch(
        self,
        call: ScoreCall,
        prefix: PrefixState,
        suffixes: Sequence[Segment],
        embeddings: dict[bytes, Tensor],
    ) -> Sequence[float | None]:
        """A logit for each suffix; None where the network fails for this suffix alone."""
        network, probe = self._network, self._probe
        assert not isinstance(network, AnsweringNetwork)
        assert probe

        def score(rows: Sequence[Segment]) -> list[float]:
            self._encode(call, rows, embeddings)
            logits = network.score(prefix, rows, embeddings)
            tokens = sum(len(row.ids) for row in rows)
            count_step(len(rows), tokens, batch_fill(prefix.tokens, rows, self._batch_tokens))
            return logits

        logits = isolated(suffixes, score, probe.works)
        probe.failed = False
        return logits

    def _verdict(self, prompt: Prompt, answer: Answer | None) -> Scored | Refused:
        if answer is not None:
            return verdict_on(self._checkpoint.family, prompt, answer)
        ISOLATED_PAIRS.inc()
        return Refused(WorkerFailed.code)

    def _encode(
        self, call: ScoreCall, segments: Sequence[Segment], embeddings: dict[bytes, Tensor]
    ) -> None:
        """Add to `embeddings` those of the segments' images that it lacks."""
        keys: set[bytes] = set()
        for segment in segments:
            keys.update(image.key for image in segment.images)
        missing = keys - embeddings.keys()
        IMAGE_CACHE_LOOKUPS.labels("hit").inc(len(keys) - len(missing))
        IMAGE_CACHE_LOOKUPS.labels("miss").inc(len(missing))

        images = {image.digest: image for image in call.images if image.digest in missing}
        if images:
            encoded = self._network.encode(list(images.values()))
            embeddings.update(zip(images, encoded, strict=True))
