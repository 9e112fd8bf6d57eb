"""The lifespan of a gateway: its parts run, and its background tasks, while requests are served.

Depends on the worker pool and on contexts, not on what they do. Invariant: everything that was
started is ended, in the reverse order, also where the start fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from service.gateway.cache.redis_tier import RedisTier
from service.gateway.fleet.pool import WorkerPool
from service.interpreter import keep_all
from service.observability.logs import log


def gateway_lifespan(
    pool: WorkerPool,
    tasks: Sequence[Callable[[], Coroutine[Any, Any, object]]],
    redis_tiers: Sequence[RedisTier],
    beside: Sequence[AbstractAsyncContextManager[Any]],
    until_served: Callable[[], Awaitable[None]],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The lifespan of the app: its background `tasks` run while the context lasts, and so do the
    contexts `beside` it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for context in beside:
                await stack.enter_async_context(context)
            await stack.enter_async_context(pool.monitored())
            running = [asyncio.create_task(task()) for task in tasks]
            for started in running:
                started.add_done_callback(_log_failure)
            keep_all()
            try:
                await until_served()
                yield
                for tier in redis_tiers:
                    await tier.close()
            finally:
                for started in running:
                    started.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    return lifespan


def _log_failure(task: asyncio.Task[object]) -> None:
    """Log the error of a background task that has ended with one."""
    if not task.cancelled() and (failure := task.exception()):
        log("a background task has ended", logging.ERROR, failure=failure)
