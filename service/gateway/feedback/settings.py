"""Settings of feedback, a part of the gateway's: its folder, its tenants, its bounds and times.

The module has names and bounds and opens no folder. Invariant: without a folder nothing is kept of
any request, and every place that keeps something has a bound of bytes and one of time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from service.gateway.cache.settings import CacheSettings
from service.web.settings import split_list


class FeedbackSettings(CacheSettings):
    """All settings of feedback, and of the score cache, whose Redis it shares."""

    feedback_folder: Path | None = Field(
        None,
        description=(
            "Folder for the feedback of POST /v1/feedback, which gateways may share; default: no"
            " feedback is taken, and nothing is kept of any request."
        ),
    )
    feedback_tenants: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=1_000,
        description=(
            "Tenants, or names of keys without a tenant, that may send feedback, comma-separated;"
            " default: all."
        ),
    )
    feedback_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description=(
            "Share of the answers of which feedback is kept, chosen by their request ids, alike in"
            " all gateways with the same RERANK_CACHE_KEY_SECRET."
        ),
    )
    feedback_window_seconds: int = Field(
        86_400,
        ge=1,
        le=31 * 86_400,
        description="Seconds after an answer for which feedback on it is taken.",
    )
    feedback_memory_bytes: int = Field(
        64 * 2**20,
        ge=2**16,
        le=2**40,
        description="Bytes of memory for the records of answers that may still get feedback.",
    )
    feedback_redis_bytes: int = Field(
        64 * 2**20,
        ge=2**16,
        le=2**40,
        description=(
            "Bytes of such records that one gateway keeps in Redis, for other gateways, where"
            " there is a Redis."
        ),
    )
    feedback_buffer_bytes: int = Field(
        32 * 2**20,
        ge=2**16,
        le=2**40,
        description=(
            "Bytes of memory for what waits to be recorded and written; what is beyond them is"
            " dropped and counted."
        ),
    )
    feedback_disk_bytes: int = Field(
        2**30,
        ge=2**20,
        le=2**50,
        description="Bytes of the folder; the oldest files go first.",
    )
    feedback_ttl_seconds: int = Field(
        30 * 86_400,
        ge=86_400,
        le=3_650 * 86_400,
        description="Seconds that anything is kept in the folder at most.",
    )
    feedback_content: bool = Field(
        False,
        description=(
            "Keep the queries, documents and pictures of answers that may get feedback in the"
            " folder, too; otherwise only ids, scores and keyed digests are kept."
        ),
    )
    feedback_content_tenants: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=1_000,
        description=(
            "Tenants whose content RERANK_FEEDBACK_CONTENT keeps, comma-separated; default: all"
            " that may send feedback."
        ),
    )

    _split_tenants = field_validator("feedback_tenants", "feedback_content_tenants", mode="before")(
        split_list
    )

    @field_validator("feedback_tenants", "feedback_content")
    @classmethod
    def _has_a_folder(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what would have no effect: a decision about content must not be lost."""
        if value and info.data.get("feedback_folder") is None:
            raise PydanticCustomError(
                "feedback_folder", "This has no effect without RERANK_FEEDBACK_FOLDER"
            )
        return value

    @field_validator("feedback_content_tenants")
    @classmethod
    def _has_content(cls, value: object, info: ValidationInfo) -> object:
        if value and not info.data.get("feedback_content"):
            raise PydanticCustomError(
                "feedback_content", "This has no effect without RERANK_FEEDBACK_CONTENT"
            )
        return value


def expect_shared_records(value: int, info: ValidationInfo) -> int:
    """The number of processes: feedback reaches any of them, and without a Redis each knows its own
    answers alone."""
    given = info.data
    if value > 1 and given.get("feedback_folder") and not given.get("redis_url"):
        raise PydanticCustomError(
            "feedback_processes", "With RERANK_FEEDBACK_FOLDER, several processes need a Redis"
        )
    return value
