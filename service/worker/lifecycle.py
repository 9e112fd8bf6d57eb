"""The life of a worker's models: loaded, checked by their golden pairs, served, and checked again
at intervals.

Depends on an engine and on checkpoints, not on HTTP. Invariant: no model is served before its
golden pairs came out as published. Later checks change nothing: their result is a metric.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio.to_thread
from msgspec import structs

from model_store.checkpoint import Adapter, Checkpoint, resolve, resolve_adapter
from model_store.folders.plain import is_assumed
from model_store.golden import GoldenPair
from model_store.manifest import CheckpointUnusable
from service.observability.engine_metrics import (
    GOLDEN_DRIFT,
    GOLDEN_PAIRS,
    GOLDEN_TOLERANCE,
    LOAD_SECONDS,
    MODEL_INFO,
)
from service.observability.logs import log
from service.observability.score_metrics import short_digest
from service.wire import WorkerInfo
from service.worker.engines.base import CannotLoad, Engine
from service.worker.golden_check import allowed_drift, check_golden, golden_drift, golden_pairs
from service.worker.settings import WorkerSettings

_POLL_SECONDS = 0.5


@dataclass(slots=True)
class ServedModels:
    """The models that are served, by name, the default one first; none before the worker is
    ready."""

    by_name: dict[str, WorkerInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model that the engine has loaded, and its golden pairs."""

    info: WorkerInfo
    pairs: Sequence[GoldenPair]


async def run_lifecycle(
    engine: Engine,
    settings: WorkerSettings,
    served: ServedModels,
    on_ready: Callable[[], None],
    on_failure: Callable[[], None],
) -> None:
    """Start the engine, check the golden pairs, fill `served`, and watch the engine until it
    ends."""
    start = time.perf_counter()
    try:
        loaded = await _load(engine, settings)
        drift = await _first_check(engine, settings, loaded)
    except Exception as failure:
        _log_failure(failure)
        on_failure()
        return

    seconds = time.perf_counter() - start
    LOAD_SECONDS.set(seconds)
    for model in loaded:
        _log_model(model.info)
    fields: dict[str, Any] = {} if drift is None else {"golden_drift": drift}
    log("ready", **fields, seconds=round(seconds, 1))
    served.by_name = {model.info.model: model.info for model in loaded}
    on_ready()

    checking = asyncio.create_task(_keep_checking(engine, settings, loaded))
    try:
        while not engine.ended():
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
    log("the engine has ended", logging.ERROR)
    on_failure()


async def _load(engine: Engine, settings: WorkerSettings) -> list[_Loaded]:
    """The checkpoint and its adapters, loaded by the engine; raises `CheckpointUnusable` or
    `CannotLoad`."""
    log("reading and checking the model's files", model=settings.model)
    checkpoint = await _resolve_checkpoint(settings)
    if checkpoint.name in settings.adapters:
        raise CannotLoad(f"An adapter cannot be named {checkpoint.name}, as the model is.")
    adapters = await _resolve_adapters(settings, checkpoint)

    log("loading the model", model=checkpoint.name, engine=settings.engine)
    infos = await engine.start(checkpoint, adapters)
    if settings.random_weights:
        log("the weights are random: timings mean something, scores do not", logging.WARNING)
        return [_Loaded(info, ()) for info in infos]

    folders = [checkpoint.folder, *(adapter.folder for adapter in adapters)]
    loaded = []
    for info, folder in zip(infos, folders, strict=True):
        pairs = golden_pairs(folder)
        loaded.append(_Loaded(structs.replace(info, golden_pairs=len(pairs)), pairs))
    return loaded


async def _resolve_checkpoint(settings: WorkerSettings) -> Checkpoint:
    """The checkpoint that the settings name. Its checksums are abandoned when the process ends."""
    find = partial(
        resolve,
        settings.model,
        revision=settings.model_revision,
        cache=settings.model_cache,
        registry=settings.registry,
        weights=not settings.random_weights,
        family=settings.model_family,
    )
    checkpoint = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
    assumed = partial(is_assumed, checkpoint.manifest, checkpoint.folder)
    if settings.model_family is None and await anyio.to_thread.run_sync(assumed):
        log(
            "the model family is assumed from the network alone; RERANK_MODEL_FAMILY names it",
            logging.WARNING,
            model=checkpoint.name,
            family=checkpoint.manifest.family,
        )
    return checkpoint


async def _resolve_adapters(settings: WorkerSettings, checkpoint: Checkpoint) -> list[Adapter]:
    find = partial(
        resolve_adapter, cache=settings.model_cache, registry=settings.registry, model=checkpoint
    )
    adapters = []
    for name, folder in settings.adapters.items():
        adapters.append(await anyio.to_thread.run_sync(find, name, folder))
    return adapters


async def _first_check(
    engine: Engine, settings: WorkerSettings, loaded: Sequence[_Loaded]
) -> float | None:
    """The largest drift of all golden pairs, None where there are none; raises `CannotLoad` where
    one is not within the tolerance."""
    count = sum(len(model.pairs) for model in loaded)
    if count:
        log("scoring golden pairs", pairs=count)

    drifts: list[float] = []
    for model in loaded:
        labels = (model.info.model, short_digest(model.info.digest))
        GOLDEN_PAIRS.labels(*labels).set(len(model.pairs))
        if not model.pairs:
            if not settings.random_weights:
                log(
                    "no golden pairs: start-up check skipped",
                    logging.WARNING,
                    model=model.info.model,
                )
            continue

        tolerance = settings.golden_tolerance
        drift = await check_golden(engine, model.info, model.pairs, tolerance)
        GOLDEN_DRIFT.labels(*labels).set(drift)
        GOLDEN_TOLERANCE.labels(*labels).set(allowed_drift(model.info, tolerance))
        drifts.append(drift)
    return max(drifts, default=None)


async def _keep_checking(
    engine: Engine, settings: WorkerSettings, loaded: Sequence[_Loaded]
) -> None:
    """Score the golden pairs again at intervals, and export their drift."""
    while settings.golden_check_seconds:
        await asyncio.sleep(settings.golden_check_seconds)
        for model in loaded:
            if model.pairs:
                await _check_again(engine, settings, model)


async def _check_again(engine: Engine, settings: WorkerSettings, model: _Loaded) -> None:
    info = model.info
    try:
        drift = await golden_drift(engine, info, model.pairs)
    except Exception as failure:  # of any kind: the next check may succeed
        log(
            "golden pairs could not be scored again",
            logging.WARNING,
            failure=failure,
            model=info.model,
        )
        return

    GOLDEN_DRIFT.labels(info.model, short_digest(info.digest)).set(drift)
    if drift > allowed_drift(info, settings.golden_tolerance):
        log(
            "golden pairs have drifted",
            logging.ERROR,
            model=info.model,
            digest=info.digest,
            golden_drift=drift,
        )


def _log_failure(failure: Exception) -> None:
    """One sentence on a model that cannot be served; a traceback where the cause is unexpected."""
    match failure:
        case CheckpointUnusable() | CannotLoad():
            log(str(failure), logging.ERROR)
        case MemoryError():
            log("There is not enough memory to load the model.", logging.ERROR)
        case _:
            log("the model failed to load", logging.ERROR, failure=failure)


def _log_model(info: WorkerInfo) -> None:
    version = short_digest(info.version) if info.version else ""
    log(
        "model ready",
        model=info.model,
        digest=info.digest,
        version=version or None,
        engine=info.engine,
        device=info.device,
        dtype=info.dtype,
    )
    MODEL_INFO.labels(
        info.model, short_digest(info.digest), version, info.engine, info.dtype, info.device
    ).set(1)
