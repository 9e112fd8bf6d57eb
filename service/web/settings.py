"""The settings of a process's HTTP server: its shutdown, its limits for clients, and browsers.

Does not depend on HTTP. Invariants: the drain period ends before the grace period does, so that a
process that receives SIGTERM ends within its grace period; an origin in the settings is one that a
browser can send.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from service.web.origins import BadOrigin, parse_origins

_CLOSING_SHARE, _CLOSING_SECONDS = 0.2, 2.0


def split_list(value: object) -> object:
    """The elements of a comma-separated list, as the environment has it; any other value as it
    is."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    return tuple(part for part in parts if part)


class ServerSettings(BaseModel):
    """The server settings of gateway and worker (`RERANK_DRAIN_SECONDS`, ...)."""

    model_config = ConfigDict(frozen=True)

    drain_seconds: float = Field(
        5,
        ge=0,
        le=3_600,
        description=(
            "Seconds to keep accepting requests after SIGTERM while reporting not ready, so "
            "that load balancers notice."
        ),
    )
    grace_seconds: float = Field(
        30,
        ge=0.5,
        le=3_600,
        description=(
            "Seconds from SIGTERM to the end of the process, drain included; requests still "
            "in flight then are cut off."
        ),
    )
    read_timeout_seconds: float = Field(
        10,
        ge=0.1,
        le=600,
        description=(
            "Seconds that a client may fall behind a rate of 32 KiB/s while it sends a "
            "request or reads an answer."
        ),
    )
    keep_alive_seconds: int = Field(
        75,
        ge=5,
        le=3_600,
        description=(
            "Seconds to keep an idle connection open; longer than clients and load balancers "
            "keep theirs, so that no request meets a connection that is being closed."
        ),
    )
    max_connections: int = Field(
        4_096,
        ge=1,
        le=100_000,
        description=(
            "Maximum number of open connections; beyond it only the health routes are answered."
        ),
    )

    @property
    def closing_seconds(self) -> float:
        """The last part of the grace period: requests have been cut off, and connections and
        engines are closed."""
        return min(_CLOSING_SECONDS, _CLOSING_SHARE * self.grace_seconds)

    @property
    def draining_seconds(self) -> float:
        """The drain period, shortened if it does not fit into the grace period."""
        return min(self.drain_seconds, self.grace_seconds - self.closing_seconds)


class BrowserSettings(BaseModel):
    """The settings of a gateway for browsers (`RERANK_CORS_ORIGINS`, ...)."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Origins whose web pages may call the service, such as https://app.example.com, "
            "comma-separated; * allows every page; default: none."
        ),
    )
    pages: bool = Field(
        True,
        description=(
            "Serve the pages for browsers, /docs, /playground and /runbook; they, and "
            "/openapi.json, need no key. Otherwise they are not there, and /openapi.json needs one."
        ),
    )

    _split_origins = field_validator("cors_origins", mode="before")(split_list)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return parse_origins(value)
        except BadOrigin as refusal:
            raise PydanticCustomError("origin", "{sentence}", {"sentence": str(refusal)}) from None
