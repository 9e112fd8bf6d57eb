"""What a worker's model goes through: it is loaded, checked by its golden pairs, served, and
checked again now and then.

Knows an engine and checkpoints, no HTTP. Invariant: nothing is served before its golden pairs came
out as published. What they come out as later decides nothing: it is measured, for whoever watches.
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

from model_store.checkpoint import resolve, resolve_adapter
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

_LOOK_SECONDS = 0.5

Checked = Sequence[tuple[WorkerInfo, Sequence[GoldenPair]]]
"""What is served, and its golden pairs."""


@dataclass(slots=True)
class WorkerState:
    """What the worker knows of itself: `served`, by name, is empty until it is ready."""

    served: dict[str, WorkerInfo] = field(default_factory=dict)
    calls: int = 0


async def run_lifecycle(
    engine: Engine,
    settings: WorkerSettings,
    state: WorkerState,
    on_ready: Callable[[], None],
    on_failure: Callable[[], None],
) -> None:
    """Start the engine, let the golden pairs decide, and watch the engine from then on."""
    start = time.perf_counter()
    try:
        checked = await _load(engine, settings)
        drift = await _first_check(engine, settings, checked)
    except (CheckpointUnusable, CannotLoad) as failure:
        log(str(failure), logging.ERROR)
        on_failure()
        return
    except MemoryError:
        log("There is not enough memory to load the model.", logging.ERROR)
        on_failure()
        return
    except Exception as failure:
        log("the model failed to load", logging.ERROR, failure=failure)
        on_failure()
        return
    served = [info for info, _ in checked]
    for info in served:
        version = info.version and short_digest(info.version)
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
    seconds = time.perf_counter() - start
    LOAD_SECONDS.set(seconds)
    measured: dict[str, Any] = {} if drift is None else {"golden_drift": drift}
    log("ready", **measured, seconds=round(seconds, 1))
    state.served = {info.model: info for info in served}
    on_ready()
    checking = asyncio.create_task(_keep_checking(engine, settings, checked))
    try:
        while not engine.ended():
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
    log("the engine has ended", logging.ERROR)
    on_failure()


async def _load(engine: Engine, settings: WorkerSettings) -> Checked:
    """What the engine serves, loaded; raises `CheckpointUnusable` or `CannotLoad`."""
    real = not settings.random_weights
    log("reading and checking the model's files", model=settings.model)
    checkpoint = await anyio.to_thread.run_sync(
        lambda: resolve(
            settings.model,
            revision=settings.model_revision,
            cache=settings.model_cache,
            registry=settings.registry,
            weights=real,
        ),
        abandon_on_cancel=True,  # nobody waits for checksums when the process is told to end
    )
    if checkpoint.name in settings.adapters:
        raise CannotLoad(f"An adapter cannot be named {checkpoint.name}, as the model is.")
    adapter = partial(
        resolve_adapter, cache=settings.model_cache, registry=settings.registry, model=checkpoint
    )
    adapters = [
        await anyio.to_thread.run_sync(adapter, *named) for named in settings.adapters.items()
    ]
    log("loading the model", model=checkpoint.name, engine=settings.engine)
    served = await engine.start(checkpoint, adapters)
    if not real:
        log("the weights are random: timings mean something, scores do not", logging.WARNING)
        return [(info, ()) for info in served]
    folders = [checkpoint.folder, *(adapter.folder for adapter in adapters)]
    checked = [(info, golden_pairs(folder)) for info, folder in zip(served, folders, strict=True)]
    return [(structs.replace(info, golden_pairs=len(pairs)), pairs) for info, pairs in checked]


async def _first_check(engine: Engine, settings: WorkerSettings, checked: Checked) -> float | None:
    """How far golden pairs are off at most, None where there are none; raises `CannotLoad` where
    that is too far."""
    if count := sum(len(pairs) for _, pairs in checked):
        log("scoring golden pairs", pairs=count)
    drifts = []
    for info, pairs in checked:
        GOLDEN_PAIRS.labels(info.model, short_digest(info.digest)).set(len(pairs))
        if not pairs:
            if not settings.random_weights:
                log("no golden pairs: start-up check skipped", logging.WARNING, model=info.model)
            continue
        drift = await check_golden(engine, info, pairs, settings.golden_tolerance)
        GOLDEN_DRIFT.labels(info.model, short_digest(info.digest)).set(drift)
        GOLDEN_TOLERANCE.labels(info.model, short_digest(info.digest)).set(
            allowed_drift(info, settings.golden_tolerance)
        )
        drifts.append(drift)
    return max(drifts, default=None)


async def _keep_checking(engine: Engine, settings: WorkerSettings, checked: Checked) -> None:
    """Measure now and then how far golden pairs are off by now."""
    while settings.golden_check_seconds:
        await asyncio.sleep(settings.golden_check_seconds)
        for info, pairs in checked:
            if not pairs:
                continue
            try:
                drift = await golden_drift(engine, info, pairs)
            # of any kind: an engine that cannot tell is no reason to stop asking
            except Exception as failure:
                log(
                    "golden pairs could not be scored again",
                    logging.WARNING,
                    failure=failure,
                    model=info.model,
                )
                continue
            GOLDEN_DRIFT.labels(info.model, short_digest(info.digest)).set(drift)
            if drift > allowed_drift(info, settings.golden_tolerance):
                log(
                    "golden pairs have drifted",
                    logging.ERROR,
                    model=info.model,
                    digest=info.digest,
                    golden_drift=drift,
                )
