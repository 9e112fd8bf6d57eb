"""The settings of a process's HTTP server: its shutdown, and its limits for clients.

Does not depend on HTTP. Invariant: the drain period ends before the grace period does, so that a
process that receives SIGTERM ends within its grace period.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

_CLOSING_SHARE, _CLOSING_SECONDS = 0.2, 2.0


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
