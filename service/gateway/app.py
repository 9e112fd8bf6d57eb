"""The gateway's composition root: settings and workers in, an ASGI app out.

Every service of the gateway is constructed here, top to bottom, and gets its parts as arguments.
Invariant: no other module of the gateway constructs one of these services.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from service.cores import cores
from service.gateway.admission.authentication import Authenticator
from service.gateway.admission.background import BackgroundQueue
from service.gateway.admission.buckets import Buckets
from service.gateway.admission.queue import AdmissionQueue
from service.gateway.admission.quotas import Quotas
from service.gateway.admission.worker_turns import turns_of
from service.gateway.admission.worker_wait import WorkerWait
from service.gateway.cache.opening import cache_secret, open_redis_tiers
from service.gateway.cache.score_cache import MemoryTier, ScoreCache
from service.gateway.cascades.catalogue import Cascades, ServedModels
from service.gateway.cascades.comparing import Comparisons
from service.gateway.cascades.reranking import CascadeReranker
from service.gateway.circuit_breaker import RetryBudget
from service.gateway.feedback.endpoint import FeedbackEndpoint
from service.gateway.feedback.opening import open_feedback
from service.gateway.feedback.recorder import AnswerRecorder
from service.gateway.fleet.discovery import DnsName
from service.gateway.fleet.dispatch import (
    HEDGE_RESERVE,
    HEDGE_SHARE,
    RETRY_RESERVE,
    RETRY_SHARE,
    RetryPolicy,
)
from service.gateway.fleet.member import BreakerPolicy, HealthCheckPolicy
from service.gateway.fleet.pool import WorkerPool
from service.gateway.images.endpoint import ImagesEndpoint
from service.gateway.images.opening import open_images
from service.gateway.images.store import ImageStore
from service.gateway.info import TITLE
from service.gateway.lifespan import gateway_lifespan
from service.gateway.media.decoders import Decoders
from service.gateway.media.fetching import Fetcher
from service.gateway.media.reader import Media
from service.gateway.model_names import ModelNames
from service.gateway.openapi import openapi_document
from service.gateway.pages import gateway_pages
from service.gateway.parsing.bodies import BodyParser
from service.gateway.processes import part_of, until_ready
from service.gateway.request_reading import RequestReader
from service.gateway.rerank import Reranker
from service.gateway.rerank_endpoint import RerankEndpoint, ignore
from service.gateway.routes import add_reranking, gateway_routes
from service.gateway.scoring import Scoring
from service.gateway.settings import GatewaySettings
from service.gateway.single_flight import SingleFlight
from service.gateway.stream.endpoint import RerankStream
from service.web.asgi import add_common_routes, new_app
from service.web.body_budget import BodyBudget
from service.web.cors import CrossOrigin


def create_gateway(
    settings: GatewaySettings,
    workers: Sequence[httpx.AsyncClient | DnsName],
    *,
    fetcher: Fetcher | None = None,
    beside: AbstractAsyncContextManager[Any] | None = None,
    buckets: Buckets | None = None,
) -> FastAPI:
    """The gateway over some workers, or one of its processes.

    `fetcher` replaces that of the settings. `beside` is entered while the gateway runs: the
    lifespan of an embedded worker. Quotas are counted in `buckets`, which its processes share.
    Raises `CascadesUnusable`, and `KeysUnusable` where required API keys cannot be read.
    """
    secret = cache_secret(settings)
    authenticator = Authenticator(plain=_plain(settings.api_keys), file=settings.api_keys_file)
    pool = _worker_pool(settings, workers)
    images = open_images(settings, settings.limits(), secret)
    recorder = open_feedback(settings, secret)
    media = _media(settings, fetcher, images)
    redis_tiers = open_redis_tiers(settings, secret)
    cache = ScoreCache([MemoryTier(settings.cache_memory_bytes), *redis_tiers])
    reranker = Reranker(pool, media, cache, Scoring(media, pool), SingleFlight(), secret=secret)
    cascades = Cascades(settings.cascades, pool)

    worker_wait = WorkerWait(settings.wait_bounds(), pool.ready, pool.until_ready)
    admission = _admission(settings, pool)
    background = BackgroundQueue(admission, lambda: part_of(pool.count_ready(), settings.processes))
    comparisons = _comparisons(settings, admission, background)
    cascading = CascadeReranker(reranker, pool, cascades, comparisons.offer)
    served = ServedModels(pool, cascades)
    names = ModelNames(served, settings.model_aliases)

    endpoint, stream, put_images, feedback = _endpoints(
        settings,
        pool,
        names,
        worker_wait=worker_wait,
        admission=admission,
        background=background,
        reranker=cascading,
        images=images,
        recorder=recorder,
        quotas=Quotas(buckets=buckets),
    )

    tasks = [media.warm_up, authenticator.monitor, *(tier.warm_up for tier in redis_tiers)]
    tasks += [cascades.watch, partial(comparisons.run, cascading)]
    running = [each.running() for each in (images, recorder) if each is not None]
    beside_pool = [beside, *running] if beside is not None else running
    wait = partial(until_ready, pool.ready, settings)
    lifespan = gateway_lifespan(pool, tasks, redis_tiers, beside_pool, wait)
    app = new_app(title=TITLE, lifespan=lifespan, openapi_url=None)
    add_reranking(app.router, endpoint, authenticator)
    app.include_router(
        gateway_routes(
            authenticator,
            stream,
            served,
            names,
            settings.limits(),
            images=put_images,
            feedback=feedback,
            metrics_public=settings.metrics_public,
            pages=gateway_pages() if settings.pages else [],
        )
    )
    _add_common_routes(app, settings, worker_wait)
    app.openapi = lambda: openapi_document(  # type: ignore[method-assign]
        app, keys=authenticator.requires_key
    )
    return app


def _add_common_routes(app: FastAPI, settings: GatewaySettings, worker_wait: WorkerWait) -> None:
    add_common_routes(
        app,
        is_ready=worker_wait.accepts,
        readiness=worker_wait.readiness,
        trusts_traces=settings.trace_trust,
        log_sample=settings.log_sample,
        cross_origin=CrossOrigin(settings.cors_origins),
        root_path=settings.root_path,
    )


def _admission(settings: GatewaySettings, pool: WorkerPool) -> AdmissionQueue:
    return AdmissionQueue(
        capacity=settings.capacity_tokens,
        max_waiting=settings.max_queued_requests,
        max_wait_seconds=settings.max_queue_ms / 1000,
        min_turns=lambda: part_of(pool.sum_ready(turns_of), settings.processes),
    )


def _comparisons(
    settings: GatewaySettings, admission: AdmissionQueue, background: BackgroundQueue
) -> Comparisons:
    return Comparisons(
        background,
        lambda: admission.waiting > 0,
        share=settings.cascade_compare_share,
        seed=settings.cascade_compare_seed,
    )


def _endpoints(
    settings: GatewaySettings,
    pool: WorkerPool,
    names: ModelNames,
    *,
    worker_wait: WorkerWait,
    admission: AdmissionQueue,
    background: BackgroundQueue,
    reranker: CascadeReranker,
    images: ImageStore | None,
    recorder: AnswerRecorder | None,
    quotas: Quotas,
) -> tuple[RerankEndpoint, RerankStream, ImagesEndpoint, FeedbackEndpoint]:
    """The endpoints of single requests, streams, images and feedback, which share quotas and
    memory."""
    body_budget = BodyBudget(max(settings.max_bodies_bytes, settings.max_body_bytes))
    reader = RequestReader(BodyParser(settings.limits()), names, settings.on_error)
    endpoint = RerankEndpoint(
        limits=settings.limits(),
        worker_wait=worker_wait,
        quotas=quotas,
        body_budget=body_budget,
        reader=reader,
        admission=admission,
        reranker=reranker,
        default_timeout=settings.default_timeout_ms / 1000,
        cache_shared=settings.cache_shared,
        answered=ignore if recorder is None else recorder.offer,
    )
    stream = RerankStream(
        pool=pool,
        worker_wait=worker_wait,
        quotas=quotas,
        body_budget=body_budget,
        reader=reader,
        background=background,
        reranker=reranker,
        bounds=settings.stream_bounds(),
        max_streams=settings.max_streams,
        cache_shared=settings.cache_shared,
    )
    put_images = ImagesEndpoint(
        settings.limits(), images, quotas, body_budget, cache_shared=settings.cache_shared
    )
    feedback = FeedbackEndpoint(recorder, quotas, body_budget)
    return endpoint, stream, put_images, feedback


def _worker_pool(
    settings: GatewaySettings, workers: Sequence[httpx.AsyncClient | DnsName]
) -> WorkerPool:
    health_checks = HealthCheckPolicy(
        probe_seconds=settings.worker_probe_ms / 1000,
        timeout_seconds=settings.worker_probe_timeout_ms / 1000,
        max_misses=settings.worker_probe_failures,
    )
    retry_policy = RetryPolicy(
        retries=RetryBudget(share=RETRY_SHARE, reserve=RETRY_RESERVE),
        hedges=RetryBudget(share=HEDGE_SHARE, reserve=HEDGE_RESERVE),
        hedge_seconds=settings.hedge_ms / 1000,
    )
    return WorkerPool(
        workers,
        health_checks,
        BreakerPolicy(),
        retry_policy,
        affinity=settings.routing == "affinity",
        split=settings.split,
    )


def _media(settings: GatewaySettings, fetcher: Fetcher | None, images: ImageStore | None) -> Media:
    """The reader of items, with the given fetcher of URLs or the one that the settings ask for."""
    rules = settings.fetch_rules()
    if fetcher is None and rules is not None:
        fetcher = Fetcher(rules)
    return Media(
        settings.limits(),
        Decoders(
            decode_seconds=settings.image_decode_ms / 1000,
            children=part_of(cores(), settings.processes),
        ),
        fetcher,
        images,
        request_seconds=settings.request_decode_ms / 1000,
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
