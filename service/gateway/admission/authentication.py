"""Authentication: the caller of a request by its API key. Changes of the keys file are followed.

Depends on the `Authorization` header and on nothing else of a request. Invariant: where keys are
required, a request without a valid one raises `Unauthorized`; a keys file that becomes invalid
changes nothing.
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

from service.errors import Unauthorized
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

RELOAD_SECONDS = 1.0
"""Time between two reads of the keys file."""
_NOT_VALID = "This API key is not valid."
_OTHER_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key", "apikey", "x-auth-token")
"""Headers in which clients of other vendors send a key."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: its scope, which cache, quota and queue keep apart from others, its
    quota, and the models that it may use (None: all)."""

    scope: str = ""
    quota: Quota = UNBOUNDED
    models: frozenset[str] | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def name(self) -> str | None:
        """The operator's name for the caller; None where it has none."""
        kind, _, name = self.scope.partition(":")
        return name if kind in ("tenant", "key") else None


ANONYMOUS = Caller()


class Authenticator:
    """Identifies callers by API key: one of the `plain` list, or one of the keys `file`.

    Without either, every request is of an anonymous caller. Raises `KeysUnusable` where the keys
    cannot be read at the start.
    """

    def __init__(self, *, plain: str | None = None, file: Path | None = None) -> None:
        self.requires_key = plain is not None or file is not None
        self._plain = () if plain is None else plain_keys(plain)
        self._file = file

        content = b"" if file is None else read_content(file)
        entries = [*self._plain]
        if file is not None:
            entries += parse_keys(file, content).keys
        self._callers = _callers(entries)
        self._content_digest = hashlib.sha256(content).digest()
        self._trouble: str | None = None
        self._set_readable(readable=True)

    async def authenticate(self, request: Request) -> None:
        """A route's dependency: find the caller of a request, or raise `Unauthorized`."""
        caller = self._caller(request.headers.raw) if self.requires_key else ANONYMOUS
        request.state.caller = caller

    async def monitor(self) -> None:
        """Log the number of keys, then follow the keys file for ever."""
        if self.requires_key:
            self._log_count()
        while self._file:
            await asyncio.sleep(RELOAD_SECONDS)
            await self.reload()

    async def reload(self) -> None:
        """Read the keys file, and use its keys if it changed and is valid.

        The content is compared, not the time of the last change: neither a new mode of the file nor
        a new folder above it changes that time.
        """
        if self._file is None:
            return

        try:
            content = await anyio.to_thread.run_sync(read_content, self._file)
            content_digest = hashlib.sha256(content).digest()
            if content_digest == self._content_digest:
                self._note_valid()
                return
            keys = (await anyio.to_thread.run_sync(parse_keys, self._file, content)).keys
        except KeysUnusable as error:
            self._note_trouble(str(error))
            return

        self._callers = _callers([*self._plain, *keys])
        self._content_digest = content_digest
        self._note_valid()
        self._log_count()

    def _note_valid(self) -> None:
        """Record that the file is readable and valid, and log it where it was not before."""
        if self._trouble is not None:
            log("the keys file can be read again")
        self._trouble = None
        self._set_readable(readable=True)

    def _note_trouble(self, reason: str) -> None:
        """Record that the file cannot be used, and log each reason once."""
        self._set_readable(readable=False)
        if reason != self._trouble:
            log(f"keys kept as they were: {reason}", logging.ERROR)
        self._trouble = reason

    def _set_readable(self, *, readable: bool) -> None:
        if self._file:
            FILE_READABLE.labels("api_keys").set(readable)

    def _log_count(self) -> None:
        if self._callers:
            log("keys read", keys=len(self._callers))
        else:
            log("there are no keys: nobody may enter", logging.WARNING)

    def _caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """The caller whose key the headers have. The key is compared with all keys, in
        constant time each, so that the time taken reveals nothing."""
        shown = [value for name, value in headers if name == b"authorization"]
        if not shown:
            raise _no_authorization(headers)
        if len(shown) > 1:
            raise Unauthorized("There is more than one Authorization header: send one.")

        scheme, _, key = shown[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthorized("The Authorization header is not of the form: Bearer KEY.")
        key = key.strip(b" ")
        if not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise Unauthorized(_NOT_VALID)

        shown_digest = digest(key)
        found = [
            caller for known, caller in self._callers if hmac.compare_digest(known, shown_digest)
        ]
        if not found:
            raise Unauthorized(_NOT_VALID)
        return found[0]


def _no_authorization(headers: Sequence[tuple[bytes, bytes]]) -> Unauthorized:
    """The error of a request without the header `Authorization`, which names the header that has
    the key instead, as other vendors' clients send it."""
    names = {name for name, _ in headers}
    for other in _OTHER_KEY_HEADERS:
        if other.encode() in names:
            return Unauthorized(
                f"The header {other} is not read: send the API key as Authorization: Bearer KEY."
            )
    return Unauthorized()


def caller_of(request: Request) -> Caller:
    """The caller of a request of a route that depends on `Authenticator.authenticate`."""
    caller: Caller = request.state.caller
    return caller


def _callers(entries: Sequence[KeyEntry]) -> list[tuple[bytes, Caller]]:
    """The hash of each key and its caller. The keys of a tenant share the quota that any of them
    has."""
    rates: dict[str, float] = {}
    in_flight: dict[str, int] = {}
    for entry in entries:
        if entry.pairs_per_second is not None:
            rates[entry.scope()] = entry.pairs_per_second
        if entry.max_in_flight is not None:
            in_flight[entry.scope()] = entry.max_in_flight

    callers: list[tuple[bytes, Caller]] = []
    for entry in entries:
        scope = entry.scope()
        quota = Quota(rates.get(scope), in_flight.get(scope))
        models = None if entry.models is None else frozenset(entry.models)
        callers.append((bytes.fromhex(entry.sha256), Caller(scope, quota, models)))
    return callers
