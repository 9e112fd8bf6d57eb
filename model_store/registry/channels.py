"""Channels: which version of a name is in use, and what was before.
`NAME/channels/CHANNEL/000012.json`, one file a promotion.

Knows records and a `Storage`, nothing of what a version is. Invariant: a record is written once and
never changed, and the one with the highest number is in force; so a reader finds a whole state at
every moment, and of two promotions at once one comes second.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.registry.storage import Storage, StoreFailed
from model_store.registry.versions import check_name

PRODUCTION = "production"
MAX_RECORD_BYTES = 2**16
_CHANNEL = re.compile("[a-z][a-z0-9-]{0,31}")
_LIKE_A_DIGEST = re.compile("[0-9a-f]{8,}")
_RECORD = re.compile(r"([0-9]{6})\.json")


class Overtaken(StoreFailed):
    """Somebody else promoted meanwhile."""


class Promotion(BaseModel):
    """One record. `previous` is the number of the record that a rollback goes back to, 0 for
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
    """Whether a name can be a channel's: nothing that could be taken for a digest."""
    return bool(_CHANNEL.fullmatch(name)) and not _LIKE_A_DIGEST.fullmatch(name)


def current(place: Storage, name: str, channel: str) -> Promotion | None:
    """The promotion that is in force; None where nothing was promoted."""
    numbers = _numbers(place, name, channel)
    return _read(place, name, channel, numbers[-1]) if numbers else None


def history(place: Storage, name: str, channel: str, limit: int = 100) -> list[Promotion]:
    """The last promotions, latest first."""
    return [
        _read(place, name, channel, number)
        for number in reversed(_numbers(place, name, channel)[-limit:])
    ]


def channels(place: Storage, name: str) -> dict[str, Promotion]:
    """What is in force in each channel of a name."""
    check_name(name)
    found = {
        channel: current(place, name, channel)
        for channel in place.names(f"{name}/channels")
        if is_channel(channel)
    }
    return {channel: promotion for channel, promotion in found.items() if promotion}


def promote(
    place: Storage,
    name: str,
    channel: str,
    digest: str,
    *,
    after: Promotion | None,
    evaluation: str | None = None,
    gate: dict[str, Any] | None = None,
    forced: bool = False,
) -> Promotion:
    """Put a version in force, if `after` still is; raises `Overtaken` where it is not."""
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
    return _append(place, name, channel, record)


def rollback(place: Storage, name: str, channel: str) -> Promotion:
    """Put the version before the current one in force again; rolling back twice goes back by
    two."""
    now = current(place, name, channel)
    if now is None or now.previous == 0:
        raise StoreFailed(f"{name}@{channel} has nothing to go back to.")
    target = _read(place, name, channel, now.previous)
    record = Promotion(
        number=now.number + 1,
        digest=target.digest,
        previous=target.previous,
        action="rollback",
        evaluation=target.evaluation,
        at=datetime.now(UTC),
    )
    return _append(place, name, channel, record)


def _append(place: Storage, name: str, channel: str, record: Promotion) -> Promotion:
    path = _folder(name, channel)
    content = record.model_dump_json(indent=2).encode()
    if len(content) > MAX_RECORD_BYTES:
        raise StoreFailed(f"{name}@{channel}: the record of a promotion is too large.")
    if not place.create(f"{path}/{record.number:06}.json", content):
        raise Overtaken(
            f"{name}@{channel} was promoted by somebody else at this moment: look, and promote"
            " again."
        )
    return record


def _numbers(place: Storage, name: str, channel: str) -> list[int]:
    return sorted(
        int(match[1])
        for file in place.names(_folder(name, channel))
        if (match := _RECORD.fullmatch(file))
    )


def _read(place: Storage, name: str, channel: str, number: int) -> Promotion:
    content = place.read(f"{_folder(name, channel)}/{number:06}.json", MAX_RECORD_BYTES)
    try:
        record = Promotion.model_validate_json(content or b"")
    except ValidationError:
        record = None
    if record is None or record.number != number or record.previous >= number:
        raise StoreFailed(f"{name}@{channel}: the record {number:06} cannot be read.")
    return record


def _folder(name: str, channel: str) -> str:
    if not is_channel(channel):
        raise StoreFailed(
            f"{channel[:40]!r} is no channel: lower-case letters, digits and dashes make one."
        )
    check_name(name)
    return f"{name}/channels/{channel}"
