"""A running vLLM engine over one checkpoint: raw scores of prompts, and embeddings of images.

Depends on vLLM 0.26 to 0.33, not on calls, fairness or HTTP. Invariant: prompts go in as token ids
and images as embeddings under their content digest, so that vLLM parses nothing that a user sent;
the result is the raw score of the checkpoint's read-out.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.generated_answer import Answer
from model_store.families.prompt import Image, Prompt
from model_store.folders.plain import read_config
from service.observability.logs import log
from service.observability.tracing import current_span, propagation_headers
from service.worker.engines.base import CannotLoad, EngineDead, EngineRefused
from service.worker.engines.progress import Progress
from service.worker.engines.vllm.arguments import engine_arguments
from service.worker.engines.vllm.image_cache import image_cache_gib, memory_bytes
from service.worker.engines.vllm.images import EngineImages
from service.worker.engines.vllm.installation import prepare_environment
from service.worker.engines.vllm.overruled import overruled
from service.worker.engines.vllm.pooling import pooling_params
from service.worker.engines.vllm.stats import StepStats
from service.worker.engines.vllm.writing import Writing

_POLL_SECONDS = 0.5
_REASON_CHARS = 200

MakeLlm = Callable[..., AsyncLLM]
"""An engine of vLLM's engine arguments and its `stat_loggers`, as `AsyncLLM.from_engine_args`."""


@dataclass(frozen=True, slots=True)
class Output:
    """A prompt's score, and the number of its tokens that came from the prefix cache."""

    answer: Answer
    reused_tokens: int


class VllmRuntime:
    """A running engine. Construction blocks for as long as loading takes; raises `CannotLoad`.

    `max_completion_tokens` bounds a score that is written as text; it is 0 for any other.
    `make_llm` starts vLLM; by default it has processes of its own.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapters: Sequence[Adapter],
        arguments: Mapping[str, str],
        max_completion_tokens: int = 0,
        make_llm: MakeLlm | None = None,
    ) -> None:
        on_cpu = bool(current_platform.is_cpu())
        prepare_environment(on_cpu=on_cpu)
        self._architecture = checkpoint.architecture
        self._adapters: dict[str, LoRARequest] = {}
        for number, adapter in enumerate(adapters, start=1):
            folder = str(adapter.folder.resolve())
            self._adapters[adapter.name] = LoRARequest(adapter.name, number, folder)

        read = engine_arguments(
            AsyncEngineArgs,
            checkpoint,
            adapters,
            arguments,
            on_cpu=on_cpu,
            max_completion_tokens=max_completion_tokens,
        )
        if "mm_processor_cache_gb" not in arguments:
            read.mm_processor_cache_gb = image_cache_gib(
                checkpoint, _kv_bytes(read), read.mm_processor_cache_gb, memory_bytes()
            )
        chosen = {name: getattr(read, name) for name in arguments}
        self._llm = _start(checkpoint, read, make_llm or AsyncLLM.from_engine_args)
        config = self._llm.vllm_config
        for difference in overruled(chosen, config):
            log(difference.sentence(), logging.WARNING)

        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.device = str(current_platform.device_type)
        self.step_tokens = int(config.scheduler_config.max_num_batched_tokens)
        self._traces = config.observability_config.otlp_traces_endpoint is not None
        self._images = self._engine_images(checkpoint, config)
        self._numbers = itertools.count()
        self._progress = Progress()
        self._writing: Writing | None = None
        if max_completion_tokens:
            self._writing = Writing(
                self._llm, checkpoint.family, max_completion_tokens, self._progress.advance
            )

    async def warm_up(self) -> None:
        """Make the requests that vLLM makes before its first prompt, and load every adapter.

        From then on a prompt is sent without a pause. An adapter that vLLM loaded with its first
        prompt, and failed to, would end the engine. Raises `CannotLoad`.
        """
        await self._llm.get_supported_tasks()
        for name, request in self._adapters.items():
            try:
                await self._llm.add_lora(request)
            except Exception as error:  # vLLM documents no closed set
                raise CannotLoad(
                    f"{name}: vLLM could not load the adapter ({type(error).__name__})."
                ) from error
        await self._llm.collective_rpc("gmr_follow", args=(os.getpid(),))

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    def stalled_seconds(self) -> float:
        """Seconds of pending work without progress; 0 without work."""
        return self._progress.stalled_seconds()

    def lacks(self, images: Sequence[Image]) -> set[Image]:
        """The images of one prompt whose embeddings are needed to send it."""
        return self._images.lacks(images) if self._images else set()

    async def encode(self, images: Mapping[Image, bytes]) -> dict[Image, Tensor]:
        """The embeddings of images given as rows of RGB bytes.

        They are `[tokens, values]` each, in the engine's dtype.
        """
        assert self._images is not None
        sizes = [(image.width, image.height) for image in images]
        arguments = (self._architecture.name, sizes, list(images.values()))
        with self._working():
            encoding = self._llm.collective_rpc("gmr_encode", args=arguments)
            results = await self._unless_dead(encoding)

        dtype, values, rows = results[0]
        embeddings = torch.frombuffer(bytearray(rows), dtype=getattr(torch, dtype)).view(-1, values)
        return self._images.split(list(images), embeddings)

    async def score(
        self, prompt: Prompt, embeddings: Mapping[Image, Tensor], *, adapter: str, salt: str
    ) -> Output:
        """Score one prompt; cancelling this takes it out of the engine.

        `embeddings` has those of the prompt's images that the engine lacks. Everything up to
        sending happens before the first pause, which keeps the two halves of vLLM's cache in step.
        """
        traced = self._traces and current_span()
        request: dict[str, Any] = {
            "prompt": self._input(prompt, embeddings, salt),
            "request_id": str(next(self._numbers)),
            "lora_request": self._adapters.get(adapter),
            "trace_headers": propagation_headers() if traced else None,
        }
        with self._working():
            if self._writing:
                answer, last = await self._writing.answer(request)
            else:
                params = pooling_params(prompt)
                async for output in self._llm.encode(pooling_params=params, **request):
                    last = output
                answer = Answer(float(last.outputs.data[0]), 0)
        return Output(answer, int(last.num_cached_tokens or 0))

    def close(self) -> None:
        self._llm.shutdown()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Count work and progress, and translate vLLM's exceptions: here, and nowhere else."""
        self._progress.begin()
        done = False
        try:
            yield
            done = True
        except Exception as error:  # vLLM documents no closed set
            if self.dead or isinstance(error, EngineDeadError):
                raise EngineDead from error
            raise EngineRefused from error
        finally:
            self._progress.end(done=done)

    async def _unless_dead(self, call: Coroutine[Any, Any, Any]) -> Any:
        """The result of a call to vLLM's workers; raises `EngineDead` where the engine dies.

        vLLM itself would wait for such a call forever.
        """
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=_POLL_SECONDS)
                if not task.done() and self.dead:
                    raise EngineDead
            return task.result()
        finally:
            task.cancel()

    def _input(
        self, prompt: Prompt, embeddings: Mapping[Image, Tensor], salt: str
    ) -> dict[str, Any]:
        """A prompt in the form that vLLM's own renderer gives it."""
        ids = [*prompt.prefix.ids, *prompt.suffix.ids]
        plain: dict[str, Any] = {"prompt_token_ids": ids}
        if salt:
            plain["cache_salt"] = salt

        if self._images is None or not prompt.images:
            return plain | {"type": "token"}
        return plain | {"type": "multimodal"} | self._images.inputs(prompt, ids, embeddings)

    def _engine_images(self, checkpoint: Checkpoint, config: Any) -> EngineImages | None:
        """The engine's images; None where the model reads text only."""
        tower, rules = self._architecture.vision, checkpoint.family.images
        if tower is None or rules is None:
            return None

        model = config.model_config
        maps = 1 + tower.sizes(read_config(checkpoint.name, checkpoint.folder)).deepstack
        return EngineImages(
            tower,
            rules,
            self._llm.renderer.mm_processor_cache,
            cache_bytes=model.get_multimodal_config().mm_processor_cache_gb * 2**30,
            token_bytes=maps * model.get_hidden_size() * model.dtype.itemsize,
        )


def _kv_bytes(arguments: Any) -> float:
    """Bytes that the prefix cache has at most, on all devices and in host memory."""
    each = arguments.kv_cache_memory_bytes
    if each is None:
        each = arguments.gpu_memory_utilization * current_platform.get_device_total_memory()
    offloaded = getattr(arguments, "kv_offloading_size", None) or 0
    devices = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
    return float(each * devices + offloaded * 2**30)


def _start(checkpoint: Checkpoint, arguments: Any, make_llm: MakeLlm) -> AsyncLLM:
    """Start vLLM with its engine arguments; raises `CannotLoad`."""
    stat_loggers = None if arguments.disable_log_stats else [StepStats]
    try:
        return make_llm(arguments, stat_loggers=stat_loggers)
    except CannotLoad:
        raise
    except Exception as error:  # vLLM documents no closed set
        raise CannotLoad(
            f"{checkpoint.name}: vLLM could not load it ({_reason(error)})."
        ) from error


def _reason(error: Exception) -> str:
    """An exception's kind and the beginning of its text, for the operator's log."""
    kind = type(error).__name__
    text = " ".join(str(error).split())
    return f"{kind}: {text[:_REASON_CHARS].rstrip('. ')}" if text else kind
