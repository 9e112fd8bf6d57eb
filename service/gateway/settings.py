"""The gateway's settings: read once from the environment (`RERANK_*`), then passed down as plain values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.contracts import Limits


class GatewaySettings(Limits, BaseSettings):
    """Every knob of the gateway; the limits of a request are among them (`RERANK_MAX_DOCUMENTS`, ...)."""

    model_config = SettingsConfigDict(env_prefix="RERANK_", frozen=True, extra="ignore")

    workers: Annotated[tuple[str, ...], NoDecode] = Field((), description="URLs of the workers, comma-separated.")
    default_timeout_ms: int = Field(60_000, ge=1, le=600_000, description="Deadline of a request that names none.")
    cache_memory_bytes: int = Field(64 * 2**20, ge=0, le=2**40, description="Size of the score cache in memory.")
    cache_key_secret: SecretStr | None = Field(None, description="Keys the cache's HMAC; default: a random one a process.")
    capacity_tokens: int = Field(4_000_000, ge=1, le=2**40, description="Estimated prompt tokens admitted at once.")
    max_waiting: int = Field(256, ge=0, le=100_000, description="Requests that may wait for capacity.")
    max_wait_ms: int = Field(5_000, ge=0, le=600_000, description="How long a request may wait for capacity.")

    routing: Literal["affinity", "least_loaded"] = Field(
        "affinity", description="Whether equal queries go to one worker, for its caches, unless it is much busier than others."
    )
    split: Literal["auto", "always", "never"] = Field(
        "auto", description="When a request is split over idle workers: where that is faster, wherever there are several, never."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")

    @field_validator("workers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("workers")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            TypeAdapter(list[HttpUrl]).validate_python(value)
        except ValidationError:
            raise PydanticCustomError("url", "A worker's address is a URL such as http://127.0.0.1:8001") from None
        return value

    def limits(self) -> Limits:
        """The limits alone, as `/info` shows them."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})
