"""The only file that runs vLLM: one engine over a checkpoint, asked for logits and for image
embeddings.

Knows vLLM 0.26 to 0.33, nothing of calls, fairness or HTTP. Invariant: prompts go in as token ids
and images as embeddings under our own content digest, so that vLLM parses nothing a user sent; what
comes out is the raw difference logit(yes) - logit(no).

vLLM's multimodal cache keeps what was sent, by digest and bounded by bytes
(`mm_processor_cache_gb`), and its sending half says what the engine still holds. Since our items
are embeddings, that cache is one of the vision tower's work: an image that was seen before costs
neither encoding nor transport.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange
from vllm.platforms import current_platform
from vllm.pooling_params import PoolingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.prompt import Image, Prompt
from model_store.families.qwen2_5_vl import grid, image_tokens
from service.observability.logs import log
from service.observability.tracing import current_span, propagation_headers
from service.worker.engines.base import CannotLoad, EngineDead, EngineRefused, Progress
from service.worker.engines.vllm.arguments import engine_arguments, prepare_environment
from service.worker.engines.vllm.overruled import overruled
from service.worker.engines.vllm.stats import StepStats

_LOOK_SECONDS = 0.5
_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Output:
    """A prompt's logit(yes) - logit(no), and how many of its tokens came from the prefix cache."""

    logit: float
    reused_tokens: int


class VllmRuntime:
    """A running engine. Construction blocks for as long as loading takes; raises `CannotLoad`."""

    def __init__(
        self, checkpoint: Checkpoint, adapters: Sequence[Adapter], arguments: Mapping[str, str]
    ) -> None:
        on_cpu = bool(current_platform.is_cpu())
        prepare_environment(on_cpu=on_cpu)
        self._pad = checkpoint.family.image_token_id
        self._params = PoolingParams(task="classify", use_activation=False)
        self._adapters = {
            adapter.name: LoRARequest(adapter.name, number, str(adapter.folder.resolve()))
            for number, adapter in enumerate(adapters, start=1)
        }
        chosen = engine_arguments(AsyncEngineArgs, checkpoint, adapters, arguments, on_cpu=on_cpu)
        wanted = {name: getattr(chosen, name) for name in arguments}
        try:
            self._llm = AsyncLLM.from_engine_args(
                chosen, stat_loggers=None if chosen.disable_log_stats else [StepStats]
            )
        except CannotLoad:
            raise
        except Exception as error:  # of any kind
            raise CannotLoad(
                f"{checkpoint.name}: vLLM could not load it ({_reason(error)})."
            ) from error
        config = self._llm.vllm_config
        for difference in overruled(wanted, config):
            log(difference.sentence(), logging.WARNING)
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.device = str(current_platform.device_type)
        self.step_tokens = int(config.scheduler_config.max_num_batched_tokens)
        self._traces = config.observability_config.otlp_traces_endpoint is not None
        self._cache = self._llm.renderer.mm_processor_cache
        a_token = config.model_config.get_hidden_size() * config.model_config.dtype.itemsize
        self._cache_tokens = (
            config.model_config.get_multimodal_config().mm_processor_cache_gb * 2**30 / a_token
        )
        self._numbers = itertools.count()
        self._progress = Progress()

    async def warm_up(self) -> None:
        """Ask once what vLLM asks before its first prompt, so that from then on a prompt is sent
        without a pause.

        Loads every adapter: one that vLLM loads with the first request for it would end the engine
        if it could not. Raises `CannotLoad`.
        """
        await self._llm.get_supported_tasks()
        for name, request in self._adapters.items():
            try:
                await self._llm.add_lora(request)
            except Exception as error:  # of any kind, as above
                raise CannotLoad(
                    f"{name}: vLLM could not load the adapter ({type(error).__name__})."
                ) from error
        await self._llm.collective_rpc("gmr_follow", args=(os.getpid(),))

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    def stalled_seconds(self) -> float:
        """How long there has been work of which nothing was done."""
        return self._progress.stalled_seconds()

    def lacks(self, images: Sequence[Image]) -> set[Image]:
        """Those of one prompt's images whose embeddings are needed to send it.

        What the engine does not hold; but all of them where they nearly fill the cache, since
        sending one may push another out.
        """
        gone = {image for image in images if not self._holds(image)}
        crowded = 2 * sum(map(image_tokens, images)) > self._cache_tokens
        return set(images) if gone and crowded else gone

    async def encode(self, images: Mapping[Image, bytes]) -> dict[Image, Tensor]:
        """The embeddings of images given as rows of RGB bytes, `[tokens, hidden]` in the engine's
        dtype."""
        sizes = [(image.width, image.height) for image in images]
        with self._working():
            results = await self._unless_dead(
                self._llm.collective_rpc("gmr_encode", args=(sizes, list(images.values())))
            )
        dtype, hidden, rows = results[0]
        embeddings = torch.frombuffer(bytearray(rows), dtype=getattr(torch, dtype)).view(-1, hidden)
        return dict(
            zip(images, embeddings.split([image_tokens(image) for image in images]), strict=True)
        )

    async def logit(
        self, prompt: Prompt, embeddings: Mapping[Image, Tensor], *, adapter: str, salt: str
    ) -> Output:
        """Score one prompt; cancelling this takes it out of the engine.

        `embeddings` has those of the prompt's images that the engine lacks. Everything up to
        sending happens before the first pause, which is what keeps vLLM's two halves of the cache
        in step.
        """
        with self._working():
            outputs = self._llm.encode(
                self._input(prompt, embeddings, salt),
                self._params,
                request_id=str(next(self._numbers)),
                lora_request=self._adapters.get(adapter),
                trace_headers=propagation_headers() if self._traces and current_span() else None,
            )
            async for output in outputs:
                last = output
        return Output(float(last.outputs.data[0]), int(last.num_cached_tokens or 0))

    def close(self) -> None:
        self._llm.shutdown()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Keep account of work and progress; vLLM's exceptions become ours here, and only here."""
        self._progress.begin()
        done = False
        try:
            yield
            done = True
        except Exception as error:  # vLLM documents no closed set
            raise (
                EngineDead if self.dead or isinstance(error, EngineDeadError) else EngineRefused
            ) from error
        finally:
            self._progress.end(done=done)

    async def _unless_dead(self, call: Coroutine[Any, Any, Any]) -> Any:
        """A call to vLLM's workers; vLLM itself would wait forever for one whose engine has
        died."""
        calling = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait((calling,), timeout=_LOOK_SECONDS))[0]:
                if self.dead:
                    raise EngineDead
            return calling.result()
        finally:
            calling.cancel()

    def _holds(self, image: Image) -> bool:
        return self._cache is not None and bool(self._cache.is_cached_item(_name(image)))

    def _input(
        self, prompt: Prompt, embeddings: Mapping[Image, Tensor], salt: str
    ) -> dict[str, Any]:
        """A prompt as vLLM's own renderer would hand it on."""
        ids = [*prompt.prefix.ids, *prompt.suffix.ids]
        plain: dict[str, Any] = {"prompt_token_ids": ids} | ({"cache_salt": salt} if salt else {})
        if not prompt.images:
            return plain | {"type": "token"}
        if self._cache is not None:
            # the receiving half does so first, too: what one has to push out is the same for both
            for image in prompt.images:
                self._cache.touch_sender_cache_item(_name(image))
        starts = self._starts(prompt, ids)
        return plain | {
            "type": "multimodal",
            "mm_kwargs": {"image": [self._item(image, embeddings) for image in prompt.images]},
            "mm_hashes": {"image": [_name(image) for image in prompt.images]},
            "mm_placeholders": {
                "image": [
                    PlaceholderRange(offset=start, length=image_tokens(image))
                    for start, image in zip(starts, prompt.images, strict=True)
                ]
            },
        }

    def _starts(self, prompt: Prompt, ids: Sequence[int]) -> list[int]:
        """Where each image's placeholders begin."""
        pads = np.flatnonzero(np.asarray(ids) == self._pad)
        lengths = [image_tokens(image) for image in prompt.images]
        return [int(pads[place]) for place in itertools.accumulate([0, *lengths[:-1]])]

    def _item(self, image: Image, embeddings: Mapping[Image, Tensor]) -> Any:
        """What has to be sent of an image: its embeddings, or nothing where the engine still has
        them."""
        if self._holds(image):
            item = None
        else:
            rows = embeddings[image]
            fields = {"image_embeds": rows, "image_grid_thw": torch.tensor([grid(image)])}
            layout = {
                "image_embeds": MultiModalFieldConfig.flat_from_sizes(
                    "image", torch.tensor([len(rows)])
                ),
                "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            }
            item = MultiModalKwargsItems.from_hf_inputs(fields, layout)["image"][0]
        if self._cache is None:
            return item
        return self._cache.get_and_update_item(item and (item, []), _name(image))[0]


def _reason(error: Exception) -> str:
    """An exception's kind and the beginning of its text, for the operator's log: most of vLLM's say
    what it lacks."""
    told = " ".join(str(error).split())
    return (
        f"{type(error).__name__}: {told[:_REASON_CHARS].rstrip('. ')}"
        if told
        else type(error).__name__
    )


def _name(image: Image) -> str:
    """What vLLM's caches call an image."""
    return f"{image.key.hex()}-{image.width}x{image.height}"
