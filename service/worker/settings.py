"""The worker's settings: read once from the environment (`RERANK_*`), then passed down as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """Every knob of the worker."""

    model_config = SettingsConfigDict(env_prefix="RERANK_", frozen=True, extra="ignore")

    model: str = Field("gmr-tiny", description="Registry name, local folder, or hub id (then with a pinned revision).")
    model_revision: str | None = Field(None, pattern="^[0-9a-f]{40}$", description="Commit of a hub model, 40 hex digits.")
    model_cache: Path | None = Field(None, description="Where hub models are kept; default: huggingface_hub's own place.")
    engine: Literal["torch"] = Field("torch", description="What runs the network.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where it runs; auto takes a GPU if there is one.")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of the network; 0: one a core.")
    batch_tokens: int = Field(1024, ge=64, le=2**20, description="Tokens of one forward pass.")
    max_calls: int = Field(64, ge=1, le=100_000, description="Calls worked on at once; more are turned away.")
    max_call_bytes: int = Field(256 * 2**20, ge=2**20, le=2**33, description="Size of one call from a gateway.")
    golden_tolerance: float | None = Field(
        None, ge=0, le=100, description="How far a golden pair's logit may be off at start; default: by dtype."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
