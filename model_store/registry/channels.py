"""Channels: which version of a name is in use, and which versions were before. Each promotion is
one file, `NAME/channels/CHANNEL/000012.json`.

Does not depend on what a version holds. Invariant: a record is written once and never changed, and
the record with the highest number is in force; so every reader finds a complete state, and of two
promotions at the same time exactly one gets the next number.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.registry.storage import RegistryFailed, Storage
from model_store.registry.versions import check_name

PRODUCTION = "production"
MAX_RECORD_BYTES = 2**16
_CHANNEL = re.compile("[a-z][a-z0-9-]{0,31}")
_LIKE_A_DIGEST = re.compile("[0-9a-f]{8,}")
_RECORD = re.compile(r"([0-9]{6})\.json")


class PromotionConflict(RegistryFailed):
    """Another promotion took the number of this one."""


class Promotion(BaseModel):
    """One record. `previous` is the number of the record that a rollback returns to, 0 for
    none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    number: int = Field(ge=1, le=999_999)
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    previous: int = Field(ge=0, le=999_999)
    action: Literal["promote", "rollback"]
    forced: bool = False
    evaluation: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="The SHA-256 of the results it came with."
    )
    gate: dict[str, Any] | None = Field(
        None, description="What the comparison with the version before gave."
    )
    at: datetime


def is_channel(name: str) -> bool:
    """True for a name that a channel can have, which no digest looks like."""
    return bool(_CHANNEL.fullmatch(name)) and not _LIKE_A_DIGEST.fullmatch(name)


def current(storage: Storage, name: str, channel: str) -> Promotion | None:
    """The promotion in force; None where nothing was promoted."""
    numbers = _numbers(storage, name, channel)
    return _read(storage, name, channel, numbers[-1]) if numbers else None


def history(storage: Storage, name: str, channel: str, limit: int = 100) -> list[Promotion]:
    """The last promotions, latest first."""
    numbers = _numbers(storage, name, channel)[-limit:]
    return [_read(storage, name, channel, number) for number in reversed(numbers)]


def channels(storage: Storage, name: str) -> dict[str, Promotion]:
    """The promotion in force in each channel of a name."""
    check_name(name)
    found: dict[str, Promotion] = {}
    for channel in storage.names(f"{name}/channels"):
        promotion = current(storage, name, channel) if is_channel(channel) else None
        if promotion is not None:
            found[channel] = promotion
    return found


def promote(
    storage: Storage,
    name: str,
    channel: str,
    digest: str,
    *,
    after: Promotion | None,
    evaluation: str | None = None,
    gate: dict[str, Any] | None = None,
    forced: bool = False,
) -> Promotion:
    """Put a version in force, if `after` still is; raises `PromotionConflict` where it is not."""
    before = after.number if after else 0

    record = Promotion(
        number=before + 1,
        digest=digest,
        previous=before,
        action="promote",
        forced=forced,
        evaluation=evaluation,
        gate=gate,
        at=datetime.now(UTC),
    )
    return _append(storage, name, channel, record)


def rollback(storage: Storage, name: str, channel: str) -> Promotion:
    """Put the version before the current one in force again; a second rollback goes back one
    more."""
    now = current(storage, name, channel)
    if now is None or now.previous == 0:
        raise RegistryFailed(f"{name}@{channel} has nothing to go back to.")

    target = _read(storage, name, channel, now.previous)
    record = Promotion(
        number=now.number + 1,
        digest=target.digest,
        previous=target.previous,
        action="rollback",
        evaluation=target.evaluation,
        at=datetime.now(UTC),
    )
    return _append(storage, name, channel, record)


def _append(storage: Storage, name: str, channel: str, record: Promotion) -> Promotion:
    folder = _folder(name, channel)
    content = record.model_dump_json(indent=2).encode()
    if len(content) > MAX_RECORD_BYTES:
        raise RegistryFailed(f"{name}@{channel}: the record of a promotion is too large.")

    if not storage.create(f"{folder}/{record.number:06}.json", content):
        raise PromotionConflict(
            f"{name}@{channel} was promoted by somebody else at this moment: look, and promote"
            " again."
        )
    return record


def _numbers(storage: Storage, name: str, channel: str) -> list[int]:
    matches = [_RECORD.fullmatch(file) for file in storage.names(_folder(name, channel))]
    return sorted(int(match[1]) for match in matches if match)


def _read(storage: Storage, name: str, channel: str, number: int) -> Promotion:
    content = storage.read(f"{_folder(name, channel)}/{number:06}.json", MAX_RECORD_BYTES)
    try:
        record = Promotion.model_validate_json(content or b"")
    except ValidationError:
        record = None
    if record is None or record.number != number or record.previous >= number:
        raise RegistryFailed(f"{name}@{channel}: the record {number:06} cannot be read.")
    return record


def _folder(name: str, channel: str) -> str:
    if not is_channel(channel):
        raise RegistryFailed(
            f"{channel[:40]!r} is no channel: lower-case letters, digits and dashes make one."
        )
    check_name(name)
    return f"{name}/channels/{channel}"
