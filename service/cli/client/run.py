"""One ranking from the command line: finds the service, ranks, and shows the progress.

Depends on calls and the terminal's progress, not on options. Invariant: what the service refuses as
a whole ends the command with one sentence, and nothing is printed on standard output.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from model_store.commands.console import fail, progress
from service.cli.client.calls import CannotCall, Service
from service.cli.client.connection import client_settings, connect
from service.cli.client.output import waiting
from service.cli.client.ranking import Question, RequestSizes, rank
from service.cli.documents.items import Document

_QUIET_DOCUMENTS = 1_000
"""Documents up to which a log gets no lines of progress."""
_NO_SERVER = (
    "Start one with `gmr serve`, give --url, or rank in this process with --model gmr-tiny."
)


@dataclass(frozen=True, slots=True)
class Target:
    """The service that ranks: at a URL, or `model` in this process where there is no URL."""

    url: str | None = None
    model: str | None = None
    key_file: Path | None = None
    with_key: bool = True
    """False: no key is sent, whatever the settings have."""


def run_ranking(
    question: Question,
    documents: Sequence[Document],
    sizes: RequestSizes,
    target: Target,
) -> dict[str, Any]:
    """The answer of the target; a failure ends the command."""
    try:
        return asyncio.run(_ranked(question, documents, sizes, target))
    except CannotCall as error:
        fail(str(error))


async def _ranked(
    question: Question, documents: Sequence[Document], sizes: RequestSizes, target: Target
) -> dict[str, Any]:
    async with open_client(target, sizes.concurrency) as (client, served_model):
        service = Service(client)
        try:
            with waiting(f"Asking {service.url}"):
                info = await service.info()
        except CannotCall as error:
            raise with_advice(error, target) from None

        fitting = within_limits(sizes, info, in_process=is_in_process(target))
        question = replace(question, model=served_model)
        with _progress(len(documents), fitting.documents) as advance:
            return await rank(service, question, documents, fitting, advance=advance)


def within_limits(
    sizes: RequestSizes, info: Mapping[str, Any], *, in_process: bool
) -> RequestSizes:
    """The sizes within the limits that a service's `/info` states; no picture is put where it would
    stay in this process."""
    stated = info.get("limits")
    limits = stated if isinstance(stated, Mapping) else {}
    bounds: list[int] = []
    for name, size in (("max_documents", sizes.documents), ("max_body_bytes", sizes.body_bytes)):
        limit = limits.get(name)
        bounds.append(min(size, limit) if isinstance(limit, int) and limit > 0 else size)
    put_images = 0 if in_process else limits.get("max_put_images", 0)
    return replace(sizes, documents=bounds[0], body_bytes=bounds[1], put_images=put_images)


def is_in_process(target: Target) -> bool:
    """True if the target is a model in this process."""
    has_url = target.url is not None or client_settings().url is not None
    return target.model is not None and not has_url


@asynccontextmanager
async def open_client(
    target: Target, connections: int
) -> AsyncIterator[tuple[httpx.AsyncClient, str | None]]:
    """A client of the target, and the model to name in requests."""
    if not is_in_process(target):
        client = connect(
            target.url, target.key_file, connections=connections, with_key=target.with_key
        )
        async with client:
            yield client, target.model
        return

    from service.cli.client.in_process import service_in_process

    assert target.model is not None
    async with service_in_process(target.model) as client:
        yield client, None


def with_advice(error: CannotCall, target: Target) -> CannotCall:
    """The error of the first call; without a server on this machine, with the ways to have one."""
    if str(error).startswith("Nothing answers") and target.url is None:
        return CannotCall(f"{error} {_NO_SERVER}")
    return error


def _progress(documents: int, of_a_request: int) -> AbstractContextManager[Callable[[int], None]]:
    """Progress of a long list: a bar on a terminal, and lines of a log for a very long one."""
    shown_from = of_a_request if sys.stderr.isatty() else _QUIET_DOCUMENTS
    if documents > shown_from:
        return progress("Ranked", documents, unit="documents")
    return _without_amounts(documents)


@contextmanager
def _without_amounts(documents: int) -> Iterator[Callable[[int], None]]:
    with waiting(f"Ranking {documents:,} document{'s' if documents != 1 else ''}"):
        yield lambda count: None
