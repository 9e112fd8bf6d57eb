"""The cascades that a gateway was given, whether each is served now, and their names among those of
the workers' models.

Depends on folders at the start and on the pool's models, not on requests. Invariant: a cascade
takes precedence over a model of the same name, and one whose stages are not all served in their
versions is refused, with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from model_store.cascades.folder import PublishedCascade, read_cascade
from model_store.manifest import CheckpointUnusable
from service.errors import ModelNotFound, NoWorker
from service.gateway.cascades.plan import Plan, plan_of
from service.gateway.fleet.pool import WorkerPool
from service.gateway.info import cascade_entry
from service.observability.cascade_metrics import CASCADE_READY, begin_series
from service.observability.logs import log
from service.wire import WorkerInfo

WATCH_SECONDS = 1.0
"""Time between two looks at whether the cascades are served, for log and metrics."""


class CascadesUnusable(Exception):
    """Cascades that a gateway cannot start with; the text is one sentence for the operator."""


class Cascades:
    """The cascades of a gateway; raises `CascadesUnusable` where a folder holds none, or two have
    the same name."""

    def __init__(self, folders: Sequence[Path], pool: WorkerPool) -> None:
        self._pool = pool
        self._published = _read(folders)
        self._reasons: dict[str, str] = dict.fromkeys(self._published, "")
        for name, published in self._published.items():
            begin_series(name, len(published.cascade.stages))

    def __iter__(self) -> Iterator[PublishedCascade]:
        return iter(self._published.values())

    def has(self, name: str | None) -> bool:
        """True for the name of a cascade, served or not."""
        return name in self._published

    def plan(self, name: str) -> Plan:
        """The plan of a cascade; raises `NoWorker` with the reason where it is not served."""
        return plan_of(self._published[name], self._pool)

    def reason(self, name: str) -> str:
        """The reason why a cascade is not served now; empty where it is."""
        try:
            self.plan(name)
        except NoWorker as error:
            return error.message
        return ""

    def described(self, may_use: Callable[[str], bool]) -> dict[str, dict[str, object]]:
        """The cascades that a caller may use, by name, as clients see them."""
        return {
            name: cascade_entry(published, self.reason(name), may_use)
            for name, published in self._published.items()
            if may_use(name)
        }

    async def watch(self) -> NoReturn:
        """Log each change of what is served, and keep the metric."""
        while True:
            for name in self._published:
                self._look(name)
            await asyncio.sleep(WATCH_SECONDS)

    def _look(self, name: str) -> None:
        reason = self.reason(name)
        CASCADE_READY.labels(name).set(not reason)
        if reason == self._reasons[name] and reason:
            return

        before, self._reasons[name] = self._reasons[name], reason
        if reason:
            log("cascade is not served", logging.WARNING, cascade=name, reason=reason)
        elif before:
            log("cascade is served", cascade=name)


class ServedModels:
    """The models of a pool and the cascades over them, by name."""

    def __init__(self, pool: WorkerPool, cascades: Cascades) -> None:
        self._pool = pool
        self._cascades = cascades

    def ready(self) -> bool:
        """True if some worker serves a model."""
        return self._pool.ready()

    def last(self) -> LastServed:
        """The models of the workers that were ready last."""
        return LastServed(self._pool.last_served)

    def cascades(self, may_use: Callable[[str], bool]) -> dict[str, dict[str, object]]:
        """The cascades that a caller may use, by name, as clients see them."""
        return self._cascades.described(may_use)

    def names(self) -> list[str]:
        """The names of models and cascades that are served, each once."""
        served = [
            each.cascade.name
            for each in self._cascades
            if not self._cascades.reason(each.cascade.name)
        ]
        return sorted({*self._pool.names(), *served})

    def model(self, name: str | None = None) -> WorkerInfo:
        """The model or the cascade of a name, None for the default model; raises `NoWorker` and
        `ModelNotFound`."""
        if name is not None and self._cascades.has(name):
            return self._cascades.plan(name).model
        return self._pool.model(name)


class LastServed:
    """Models by name, as workers described them before the last one went."""

    def __init__(self, models: Sequence[WorkerInfo]) -> None:
        self._models = models

    def names(self) -> list[str]:
        return sorted({model.model for model in self._models})

    def model(self, name: str | None = None) -> WorkerInfo:
        """The model of a name, None for the default one; raises `NoWorker` where no worker has
        been ready, and `ModelNotFound`."""
        if not self._models:
            raise NoWorker("No worker has been ready since this gateway started.")
        for model in self._models:
            if name in (None, model.model):
                return model
        raise ModelNotFound


def _read(folders: Sequence[Path]) -> dict[str, PublishedCascade]:
    published: dict[str, PublishedCascade] = {}
    for folder in folders:
        try:
            found = read_cascade(folder)
        except CheckpointUnusable as error:
            raise CascadesUnusable(f"RERANK_CASCADES: {error}") from None
        if found.cascade.name in published:
            raise CascadesUnusable(
                f"RERANK_CASCADES: two folders hold a cascade named {found.cascade.name}."
            )
        published[found.cascade.name] = found
    return published
