"""A worker's app in this process, around an engine, with a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from service.worker.app import create_worker
from service.worker.engines.base import Engine
from service.worker.settings import WorkerSettings

READY_SECONDS = 120


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app, which the caller runs."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://worker", timeout=None
    ) as client:
        yield client


@asynccontextmanager
async def ready_worker(
    settings: WorkerSettings, engine: Engine
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a worker that is ready; the test fails where it cannot be."""
    ready = asyncio.Event()
    app = create_worker(
        settings,
        engine,
        on_ready=ready.set,
        on_failure=lambda: pytest.fail("the worker is not ready"),
    )
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(ready.wait(), READY_SECONDS)
        async with client_of(app) as client:
            yield client
