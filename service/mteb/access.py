"""A service as it is reached: its URL, the key, and which of its models is asked.

Depends on the client that commands have, not on mteb. Invariant: wrong arguments and settings are
errors of Python, and never end the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx
from pydantic import ValidationError

from model_store.evaluation.runs.scorer import ScoringStopped
from service.cli.client.calls import CannotCall, Service
from service.cli.client.connection import checked_key, client_of, key_of, parsed_url
from service.cli.client.ranking import RequestSizes
from service.cli.client.run import within_limits
from service.cli.client.settings import DEFAULT_URL, ClientSettings
from service.cli.evaluation.scorer import PATIENCE, HttpScorer, served_model

_DOCUMENTS = 100
"""Documents of one request, at most, as in `gmr eval`."""


@dataclass(frozen=True, slots=True)
class Description:
    """The served model: what the service says of it, its digest, and the sizes of requests."""

    info: Mapping[str, Any]
    digest: str
    sizes: RequestSizes

    @property
    def takes_instruction(self) -> bool:
        """False for a model whose prompt has no place for an instruction."""
        return bool(self.info.get("takes_instruction", True))


@dataclass(frozen=True, slots=True)
class Access:
    """A service that can be opened; `model` is the name of one of several models."""

    base: httpx.URL
    key: str | None
    model: str | None
    connections: int

    @classmethod
    def of(cls, url: str | None, key: str | None, model: str | None, connections: int) -> Self:
        """From arguments, and from RERANK_URL, RERANK_KEY and RERANK_KEY_FILE without them.

        Raises `ValueError`, whose text is one sentence, and `OSError` for the file of a key.
        """
        try:
            settings = ClientSettings()
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0]).upper()
            raise ValueError(f"RERANK_{name}: {error.errors()[0]['msg']}.") from None
        base = parsed_url(url or settings.url or DEFAULT_URL)
        found = key_of(settings) if key is None else checked_key(key)
        return cls(base, found, model, connections)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Service]:
        """A client, as long as the context lasts."""
        async with client_of(self.base, self.key, connections=self.connections) as client:
            yield Service(client, PATIENCE)

    async def describe(self, service: Service) -> Description:
        """The model that is served. Raises `ScoringStopped`."""
        try:
            info = await service.info()
            served = await served_model(service, self.model, info)
            described = info
            if served.digest != info.get("model_digest"):
                described = await service.model(served.name) | {"model": served.name}
        except CannotCall as error:
            raise ScoringStopped(str(error)) from None

        most = RequestSizes(documents=_DOCUMENTS, concurrency=1)
        return Description(
            {"limits": info.get("limits"), **described},
            served.digest,
            within_limits(most, info, in_process=False),
        )

    def scorer(self, service: Service, described: Description) -> HttpScorer:
        """The scorer of the model."""
        return HttpScorer(service, self.model, described.sizes)
