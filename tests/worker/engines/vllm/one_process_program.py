"""Workers of several checkpoints, one after the other, with vLLM's engine in this process.

A start of vLLM takes half a minute of three processes, and another small checkpoint in the same
process a few seconds. All but vLLM's processes is as in a worker. The program reads a question in
JSON from each line of its standard input and writes a line of JSON; lines of vLLM's own begin
otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.llm_engine import LLMEngine

from model_store.checkpoint import resolve
from model_store.manifest import CheckpointUnusable
from service.observability.logs import log_to_stderr
from service.wire import MSGPACK
from service.worker.app import create_worker
from service.worker.engines.base import CannotLoad
from service.worker.engines.vllm.arguments import engine_arguments
from service.worker.engines.vllm.engine import VllmEngine
from service.worker.settings import WorkerSettings

_COUNTS = ("hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size")
_TOWER = ("depth", "hidden_size", "embed_dim", "num_heads", "in_channels", "window_size")
_ROPE = ("mrope_section", "rope_theta", "rope_type")


class EngineInProcess:
    """The part of vLLM's `AsyncLLM` that workers use, on an engine in this process."""

    errored = False

    def __init__(self, arguments: Any, stat_loggers: Any) -> None:
        self._llm: Any = LLMEngine.from_engine_args(arguments, stat_loggers=stat_loggers)
        self.vllm_config = self._llm.vllm_config
        self.renderer = self._llm.renderer
        self._ended: dict[str, Any] = {}

    async def get_supported_tasks(self) -> Any:
        return self._llm.get_supported_tasks()

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> Any:
        return self._llm.collective_rpc(method, args=args)

    async def encode(
        self,
        prompt: Any,
        pooling_params: Any,
        request_id: str,
        lora_request: Any,
        trace_headers: Any,
    ) -> AsyncIterator[Any]:
        """The output of a prompt. Prompts that are there at once share the engine's steps."""
        self._llm.add_request(request_id, prompt, pooling_params, lora_request=lora_request)
        while request_id not in self._ended:
            await asyncio.sleep(0)
            if request_id not in self._ended:
                outputs = [output for output in self._llm.step() if output.finished]
                self._ended |= {output.request_id: output for output in outputs}
        yield self._ended.pop(request_id)

    def shutdown(self) -> None:
        self._llm.engine_core.shutdown()
        del self._llm, self.renderer
        cleanup_dist_env_and_memory()


class Served:
    """The worker that was asked last. Another one is started in its place."""

    def __init__(self) -> None:
        self._asked: dict[str, Any] = {}
        self._running = AsyncExitStack()
        self._client: httpx.AsyncClient | None = None

    async def answer(self, worker: dict[str, Any], calls: list[str]) -> dict[str, Any]:
        """The served model's description, and the replies to calls."""
        if self._client is None or worker != self._asked:
            await self.close()
            self._client = await self._start(**worker)
            self._asked = worker
        (info,) = (await self._client.get("/info")).json()
        replies = []
        for call in calls:
            reply = await self._client.post(
                "/score", content=base64.b64decode(call), headers={"content-type": MSGPACK}
            )
            assert reply.status_code == httpx.codes.OK, reply.text
            replies.append(base64.b64encode(reply.content).decode())
        return {"info": info, "replies": replies}

    async def close(self) -> None:
        self._client = None
        await self._running.aclose()

    async def _start(self, model: str, arguments: dict[str, str]) -> httpx.AsyncClient:
        """A client of the worker of a folder, on vLLM with engine arguments."""
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        app = create_worker(
            WorkerSettings(model=model, engine="vllm"),
            VllmEngine(arguments, make_llm=EngineInProcess),
            on_ready=lambda: ready.set_result(True),
            on_failure=lambda: ready.set_result(False),
        )
        await self._running.enter_async_context(app.router.lifespan_context(app))
        assert await ready, "the worker is not ready: see its log"
        transport = httpx.ASGITransport(app)
        return await self._running.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://worker", timeout=None)
        )


def configuration(folder: str) -> dict[str, Any]:
    """vLLM's configuration of a folder, without its weights."""
    try:
        arguments = engine_arguments(AsyncEngineArgs, resolve(folder), (), {}, on_cpu=True)
    except (CannotLoad, CheckpointUnusable) as refusal:
        return {"refused": str(refusal)}
    config = arguments.create_model_config()
    whole = config.hf_config
    text, vision = whole.get_text_config(), getattr(whole, "vision_config", None)
    rope = getattr(text, "rope_parameters", None) or {}
    return {
        "architecture": config.architecture,
        "architectures": whole.architectures,
        "tied": [whole.tie_word_embeddings, text.tie_word_embeddings],
        "rope": {key: rope.get(key) for key in _ROPE},
        "mrope": config.uses_mrope,
        "text": [getattr(text, key, None) for key in _COUNTS],
        "vision": [getattr(vision, key, None) for key in _TOWER],
        "runner": [config.runner_type, config.convert_type],
        "pooling": getattr(config.pooler_config, "seq_pooling_type", None),
        "dtype": str(config.dtype),
        "quantization": config.quantization,
    }


async def main() -> None:
    """Answer questions of `{"folder"}` by a configuration, and of `{"worker", "calls"}` by a
    worker."""
    log_to_stderr("info")
    served = Served()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "folder" in asked:
                found = configuration(asked["folder"])
            else:
                found = await served.answer(asked["worker"], asked["calls"])
        except Exception:  # of any kind: the next question is another test's
            found = {"failed": traceback.format_exc()}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    await served.close()


if __name__ == "__main__":
    asyncio.run(main())
