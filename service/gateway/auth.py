"""Who may come in: a caller's key to a caller, and the keys kept up to date while the gateway runs.

Knows the `Authorization` header and nothing else of a request: neither its path nor its URL. Invariant: where keys are asked for,
whoever shows none of them raises `Unauthorized`; a keys file that turns bad changes nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from fastapi import Request

from service.errors import Forbidden, Unauthorized
from service.gateway.keys import MAX_KEY_CHARACTERS, KeyEntry, KeysUnusable, digest, plain_keys, read_keys
from service.gateway.quotas import UNBOUNDED, Quota
from service.logs import say
from service.metrics import FILE_READABLE

LOOK_SECONDS = 1.0
"""How often the keys file is looked at."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a scope (what belongs together: cache, quota, place in line), its quota, and the models it may use."""

    scope: str = ""
    quota: Quota = UNBOUNDED
    models: frozenset[str] | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def name(self) -> str | None:
        """What the operator calls it; None where it has no name."""
        kind, _, name = self.scope.partition(":")
        return name if kind in ("tenant", "key") else None

    def expect_may_use(self, model: str) -> None:
        """Raise `Forbidden` if the caller may not use a model."""
        if not self.may_use(model):
            raise Forbidden


ANYONE = Caller()


class Guard:
    """Lets in those who show a key: one of `plain`, or one of the `file`, which is read again when it changes.

    Without either, everyone is let in. Raises `KeysUnusable`.
    """

    def __init__(self, *, plain: str | None = None, file: Path | None = None) -> None:
        self._plain = () if plain is None else plain_keys(plain)
        self._file = file
        self.asks = plain is not None or file is not None
        self._seen: object = None if file is None else _signature(file)
        self._callers = _callers([*self._plain, *(read_keys(file).keys if file else ())])
        self._tell_file(readable=True)

    async def enter(self, request: Request) -> None:
        """A route's dependency: know the caller, or raise `Unauthorized`."""
        request.state.caller = self._caller(request.headers.raw) if self.asks else ANYONE

    async def watch(self) -> None:
        """Say how many keys there are, and read the file again whenever it changes."""
        if self.asks:
            self._tell()
        while self._file:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read the file again if it has changed; where it cannot be read, the keys stay as they are."""
        if self._file is None:
            return
        signature = await anyio.to_thread.run_sync(_signature, self._file)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            file = await anyio.to_thread.run_sync(read_keys, self._file)
        except KeysUnusable as error:
            self._tell_file(readable=False)
            say(f"keys kept as they were: {error}", logging.ERROR)
            return
        self._callers = _callers([*self._plain, *file.keys])
        self._tell_file(readable=True)
        self._tell()

    def _tell_file(self, *, readable: bool) -> None:
        if self._file:
            FILE_READABLE.labels("api_keys").set(readable)

    def _tell(self) -> None:
        if self._callers:
            say("keys read", keys=len(self._callers))
        else:
            say("there are no keys: nobody may enter", logging.WARNING)

    def _caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """Whose key the headers show. All keys are compared, and always all of them."""
        shown = [value for name, value in headers if name == b"authorization"]
        if len(shown) != 1:
            raise Unauthorized
        scheme, _, key = shown[0].partition(b" ")
        key = key.strip(b" ")
        if scheme.lower() != b"bearer" or not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise Unauthorized
        sought = digest(key)
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, sought)]
        if not found:
            raise Unauthorized
        return found[0]


def caller_of(request: Request) -> Caller:
    """Who asks; a route that is not guarded has nobody."""
    caller: Caller = request.state.caller
    return caller


def _callers(entries: Sequence[KeyEntry]) -> list[tuple[bytes, Caller]]:
    """Each key's hash and its caller. A tenant's keys share the quota that any of them states."""
    rates = {each.scope(): each.pairs_per_second for each in entries if each.pairs_per_second is not None}
    flights = {each.scope(): each.max_in_flight for each in entries if each.max_in_flight is not None}
    return [
        (
            bytes.fromhex(each.sha256),
            Caller(
                scope=each.scope(),
                quota=Quota(rates.get(each.scope()), flights.get(each.scope())),
                models=None if each.models is None else frozenset(each.models),
            ),
        )
        for each in entries
    ]


def _signature(path: Path) -> object:
    """What differs when a file was written or replaced, also behind a link; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
