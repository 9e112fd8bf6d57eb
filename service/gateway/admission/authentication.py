"""Who may come in: a caller's key to a caller, and the keys kept up to date while the gateway runs.

Knows the `Authorization` header and nothing else of a request: neither its path nor its URL.
Invariant: where keys are asked for, whoever shows none of them raises `Unauthorized`; a keys file
that turns bad changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from fastapi import Request

from service.errors import Forbidden, Unauthorized
from service.gateway.admission.keys import (
    MAX_KEY_CHARACTERS,
    KeyEntry,
    KeysUnusable,
    digest,
    parse_keys,
    plain_keys,
    read_content,
)
from service.gateway.admission.quotas import UNBOUNDED, Quota
from service.observability.logs import log
from service.observability.metrics import FILE_READABLE

LOOK_SECONDS = 1.0
"""How often the keys file is read."""
_NOT_VALID = "This API key is not valid."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a scope (what belongs together: cache, quota, place in line), its quota, and the
    models it may use."""

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


ANONYMOUS = Caller()


class Authenticator:
    """Lets in those who show a key: one of `plain`, or one of the `file`, which is followed when it
    changes.

    Without either, everyone is let in. Raises `KeysUnusable`.
    """

    def __init__(self, *, plain: str | None = None, file: Path | None = None) -> None:
        self._plain = () if plain is None else plain_keys(plain)
        self._file = file
        self.asks = plain is not None or file is not None
        content = b"" if file is None else read_content(file)
        self._callers = _callers([*self._plain, *(parse_keys(file, content).keys if file else ())])
        self._seen = hashlib.sha256(content).digest()
        self._trouble: str | None = None
        self._tell_file(readable=True)

    async def authenticate(self, request: Request) -> None:
        """A route's dependency: know the caller, or raise `Unauthorized`."""
        request.state.caller = self._caller(request.headers.raw) if self.asks else ANONYMOUS

    async def watch(self) -> None:
        """Say how many keys there are, and read the file again whenever it changes."""
        if self.asks:
            self._tell()
        while self._file:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read the file, and follow it if it says something else; where it cannot be read, the keys
        stay as they are.

        It is read each time: neither a change of its mode, nor one of a folder above it, shows in
        the time it was written.
        """
        if self._file is None:
            return
        try:
            content = await anyio.to_thread.run_sync(read_content, self._file)
            seen = hashlib.sha256(content).digest()
            if seen == self._seen:
                self._is_well()
                return
            file = await anyio.to_thread.run_sync(parse_keys, self._file, content)
        except KeysUnusable as error:
            self._is_in_trouble(str(error))
            return
        self._callers = _callers([*self._plain, *file.keys])
        self._seen = seen
        self._is_well()
        self._tell()

    def _is_well(self) -> None:
        """The file is readable and sound; say so where it was not."""
        if self._trouble is not None:
            log("the keys file can be read again")
        self._trouble = None
        self._tell_file(readable=True)

    def _is_in_trouble(self, why: str) -> None:
        """The file cannot be used; say so once for each reason."""
        self._tell_file(readable=False)
        if why != self._trouble:
            log(f"keys kept as they were: {why}", logging.ERROR)
        self._trouble = why

    def _tell_file(self, *, readable: bool) -> None:
        if self._file:
            FILE_READABLE.labels("api_keys").set(readable)

    def _tell(self) -> None:
        if self._callers:
            log("keys read", keys=len(self._callers))
        else:
            log("there are no keys: nobody may enter", logging.WARNING)

    def _caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """Whose key the headers show. All keys are compared, and always all of them."""
        shown = [value for name, value in headers if name == b"authorization"]
        if not shown:
            raise Unauthorized
        if len(shown) > 1:
            raise Unauthorized("There is more than one Authorization header: send one.")
        scheme, _, key = shown[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("The Authorization header is not of the form: Bearer KEY.")
        key = key.strip(b" ")
        if not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise Unauthorized(_NOT_VALID)
        sought = digest(key)
        found = [caller for known, caller in self._callers if hmac.compare_digest(known, sought)]
        if not found:
            raise Unauthorized(_NOT_VALID)
        return found[0]


def caller_of(request: Request) -> Caller:
    """Who asks; a route that is not guarded has nobody."""
    caller: Caller = request.state.caller
    return caller


def _callers(entries: Sequence[KeyEntry]) -> list[tuple[bytes, Caller]]:
    """Each key's hash and its caller. A tenant's keys share the quota that any of them states."""
    rates = {
        each.scope(): each.pairs_per_second for each in entries if each.pairs_per_second is not None
    }
    flights = {
        each.scope(): each.max_in_flight for each in entries if each.max_in_flight is not None
    }
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
