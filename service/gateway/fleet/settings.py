"""The settings of the gateway's fleet: look-ups, probes, hedges and routing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FleetSettings(BaseModel):
    """The settings of the fleet (`RERANK_WORKER_PROBE_MS`, `RERANK_ROUTING`, ...)."""

    model_config = ConfigDict(frozen=True)

    worker_dns_ms: int = Field(
        5_000,
        ge=10,
        le=600_000,
        description="Milliseconds between two DNS lookups of the dns:// hosts.",
    )
    worker_probe_ms: int = Field(
        1_000,
        ge=10,
        le=60_000,
        description="Milliseconds between two probes of a ready worker.",
    )
    worker_probe_timeout_ms: int = Field(
        2_000, ge=10, le=60_000, description="Milliseconds that a worker has to answer a probe."
    )
    worker_probe_failures: int = Field(
        3,
        ge=1,
        le=100,
        description="Probes missed in a row after which a worker counts as unresponsive.",
    )
    wait_for_worker_seconds: float = Field(
        0,
        ge=0,
        le=3_600,
        description=(
            "Seconds that a request waits for a worker while none is ready, as where workers are "
            "scaled to zero, at most until its own deadline; the gateway then counts as ready "
            "without a worker. 0: such requests are refused at once."
        ),
    )
    max_waiting_for_worker: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Maximum number of requests that wait for a worker while none is ready.",
    )
    max_waiting_for_worker_bytes: int = Field(
        64 * 2**20,
        ge=1_024,
        le=2**40,
        description="Maximum bytes of the bodies of requests that wait for a worker.",
    )
    hedge_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        description=(
            "Milliseconds without a reply after which an idle worker is sent the same call; "
            "0: never."
        ),
    )
    routing: Literal["affinity", "least_loaded"] = Field(
        "affinity",
        description=(
            "How a worker is chosen: affinity sends equal queries (equal documents, where prompts "
            "begin with them) to one worker, for its caches, unless that worker is much busier "
            "than the others."
        ),
    )
    split: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Split a request over idle workers: auto (where faster), always, or never. Of "
        "documents' home workers: auto (those with 128 tokens or more), always, or never.",
    )
