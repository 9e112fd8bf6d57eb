"""The gateway's composition root: settings and worker clients in, an ASGI app out. Everything is
built here, top to bottom."""

from __future__ import annotations

import gc
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from service.gateway.admission.authentication import Authenticator
from service.gateway.admission.queue import TURNS_A_WORKER, AdmissionQueue
from service.gateway.cache.encoding import Seal
from service.gateway.cache.redis_client import Certificates, open_client, watch
from service.gateway.cache.redis_tier import RedisTier
from service.gateway.cache.score_cache import MemoryTier, ScoreCache
from service.gateway.fleet.discovery import DnsName, dns_name
from service.gateway.fleet.dispatch import RetryPolicy
from service.gateway.fleet.member import HealthCheckPolicy
from service.gateway.fleet.pool import WorkerPool
from service.gateway.info import TITLE, openapi_page
from service.gateway.media.fetching import Fetcher
from service.gateway.media.reader import Media
from service.gateway.rerank import Reranker
from service.gateway.rerank_endpoint import RerankEndpoint
from service.gateway.routes import gateway_routes
from service.gateway.settings import GatewaySettings
from service.web.asgi import add_common_routes, new_app

_CONNECT_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 2.0
"""Less than a worker keeps an idle connection (5 at least), so that no call is sent into one that
is just being closed."""


def connect(settings: GatewaySettings) -> list[httpx.AsyncClient | DnsName]:
    """Clients for the workers that the settings name, and the names that are looked up."""
    seconds = settings.worker_dns_ms / 1000
    named = [(url, dns_name(url)) for url in settings.workers]
    return [
        DnsName(*name, connect=_client, seconds=seconds) if name else _client(url)
        for url, name in named
    ]


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=32, keepalive_expiry=_KEEP_ALIVE_SECONDS
    )
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        limits=limits,
        trust_env=False,
    )


def create_gateway(
    settings: GatewaySettings,
    workers: Sequence[httpx.AsyncClient | DnsName],
    *,
    beside: AbstractAsyncContextManager[Any] | None = None,
) -> FastAPI:
    """The gateway over the given workers. `beside` is entered for as long as the gateway runs: an
    embedded worker's lifespan.

    Raises `KeysUnusable` where keys are to be asked for and cannot be read.
    """
    given = settings.api_keys
    guard = Authenticator(
        plain=None if given is None else given.get_secret_value(), file=settings.api_keys_file
    )
    pool = WorkerPool(
        workers,
        affinity=settings.routing == "affinity",
        split=settings.split,
        patience=HealthCheckPolicy(
            settings.worker_probe_ms / 1000,
            settings.worker_probe_timeout_ms / 1000,
            settings.worker_probe_failures,
        ),
        again=RetryPolicy(settings.hedge_ms / 1000),
    )
    media = _media(settings)
    secret = _secret(settings)
    shared = _redis_tier(settings, secret)
    cache = ScoreCache([MemoryTier(settings.cache_memory_bytes), *shared])
    reranker = Reranker(media, cache, pool, secret=secret)
    admission = AdmissionQueue(
        capacity=settings.capacity_tokens,
        max_waiting=settings.max_queued_requests,
        max_wait_seconds=settings.max_queue_ms / 1000,
        always=lambda: TURNS_A_WORKER * pool.count_ready(),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            beside or nullcontext(),
            pool.monitored(),
            anyio.create_task_group() as background,
        ):
            background.start_soon(media.warm_up)
            background.start_soon(guard.watch)
            for tier in shared:
                background.start_soon(tier.warm_up)
            gc.collect()
            # what is there now stays: looking through it again would cost every request half a
            # millisecond
            gc.freeze()
            yield
            for tier in shared:  # first: once the scope is cancelled, nothing is waited for
                await tier.close()
            background.cancel_scope.cancel()

    app = new_app(title=TITLE, lifespan=lifespan, openapi_url=None)
    app.include_router(
        gateway_routes(settings, RerankEndpoint(settings, reranker, admission, pool), pool, guard)
    )
    add_common_routes(
        app, is_ready=pool.ready, trusts_traces=settings.trace_trust, log_sample=settings.log_sample
    )
    app.openapi = lambda: openapi_page(app, keys=guard.asks)  # type: ignore[method-assign]
    return app


def _media(settings: GatewaySettings) -> Media:
    rules = settings.fetch_rules()
    return Media(
        settings.limits(),
        Fetcher(rules) if rules else None,
        decode_seconds=settings.image_decode_ms / 1000,
        request_seconds=settings.request_decode_ms / 1000,
    )


def _secret(settings: GatewaySettings) -> bytes:
    given = _plain(settings.cache_key_secret)
    return given.encode() if given else secrets.token_bytes(32)


def _redis_tier(settings: GatewaySettings, secret: bytes) -> list[RedisTier]:
    """The tier that gateways share, if there is one."""
    address = settings.redis_address()
    if not address:
        return []
    certificates = Certificates(
        settings.redis_ca_file, settings.redis_cert_file, settings.redis_key_file
    )
    watch(certificates, settings.redis_password_file)
    client = open_client(
        address,
        password=_plain(settings.redis_password),
        password_file=settings.redis_password_file,
        sentinel_password=_plain(settings.redis_sentinel_password),
        certificates=certificates,
        connections=settings.redis_connections,
    )
    return [
        RedisTier(
            client,
            Seal(secret),
            prefix=settings.redis_key_prefix,
            ttl_seconds=settings.cache_ttl_seconds,
            budget_seconds=settings.redis_timeout_ms / 1000,
            connections=settings.redis_connections,
        )
    ]


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
