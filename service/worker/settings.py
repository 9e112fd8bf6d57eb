"""The worker's settings: read once from the environment (`RERANK_*`), then passed down as plain
values.

Does not depend on engines. Invariant: settings that exist are within their bounds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.observability.settings import TracingSettings
from service.web.settings import ServerSettings

ENGINE_PREFIX = "RERANK_ENGINE_"
"""Every engine argument of vLLM is a setting, such as `RERANK_ENGINE_MAX_NUM_SEQS` for
`max_num_seqs`."""
MAX_ADAPTERS = 256
_ADAPTERS = "Adapters are given as name=folder, comma-separated, each name once"


def _engine_arguments_of_environment() -> dict[str, str]:
    arguments = {}
    for name, value in os.environ.items():
        if name.startswith(ENGINE_PREFIX):
            arguments[name.removeprefix(ENGINE_PREFIX).lower()] = value
    return arguments


class WorkerSettings(ServerSettings, TracingSettings, BaseSettings):
    """The settings of a worker. vLLM's engine arguments are apart: vLLM itself checks them."""

    model_config = SettingsConfigDict(env_prefix="RERANK_", frozen=True, extra="ignore")

    model: str = Field(
        "gmr-tiny",
        description=(
            "Model to serve: a name that ships, a folder, NAME@production of the registry, or"
            " a hub id with a revision."
        ),
    )
    model_family: str | None = Field(
        None,
        pattern="^[a-z0-9][a-z0-9.-]{0,63}$",
        description=(
            "Model family of a folder or hub model without a manifest, where its files do not tell."
        ),
    )
    model_revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="Commit of a hub model, 40 hex digits."
    )
    model_cache: Path | None = Field(
        None, description="Folder for downloaded models; default: the user's cache folder."
    )
    registry: str | None = Field(
        None,
        max_length=2_048,
        description="Folder or URL (s3://, gs://) of the model registry.",
    )
    adapters: Annotated[dict[str, Path], NoDecode] = Field(
        {},
        description=(
            "LoRA adapters served beside the model, as name=folder, comma-separated (vLLM only)."
        ),
    )
    engine: Literal["torch", "vllm"] = Field("torch", description="Engine that runs the model.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device of the torch engine; auto uses a GPU if there is one."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of the engine; 0: one per core."
    )
    batch_tokens: int = Field(
        1024,
        ge=64,
        le=2**20,
        description="Maximum number of tokens in one forward pass of the torch engine.",
    )
    max_completion_tokens: int | None = Field(
        None,
        ge=16,
        le=32_768,
        description=(
            "Maximum number of tokens that a model which writes its score as text may write for a"
            " pair; default: the model family's."
        ),
    )
    stall_seconds: float = Field(
        60,
        ge=1,
        le=3600,
        description=(
            "Seconds without progress, while there is work, after which the engine counts as "
            "stuck and the worker reports that it is not alive."
        ),
    )
    max_calls: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Maximum number of calls worked on at once; further ones are turned away.",
    )
    max_call_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        le=2**33,
        description="Maximum size, in bytes, of one call from a gateway.",
    )
    max_calls_bytes: int = Field(
        512 * 2**20, ge=2**20, le=2**36, description="Bytes of memory for all calls held at once."
    )
    picture_store_bytes: int = Field(
        512 * 2**20,
        ge=0,
        le=2**40,
        description=(
            "Bytes of memory for decoded pictures of earlier calls, which gateways do not decode "
            "and send again; 0: none."
        ),
    )
    golden_tolerance: float | None = Field(
        None,
        ge=0,
        le=100,
        description=(
            "Maximum difference of a golden pair's logit at start; default: depends on the dtype."
        ),
    )
    golden_check_seconds: float = Field(
        600,
        ge=0,
        le=86_400,
        description=(
            "Seconds between two checks of the golden pairs while the model is served, for "
            "the metrics; 0: only at start."
        ),
    )
    processes: int = Field(
        1,
        ge=1,
        le=8,
        description=(
            "Workers of `gmr worker` that share its device, on its port and those after it; bounds"
            " of memory, the engine's included, and threads are for all of them together."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log lines."
    )

    _engine_arguments: dict[str, str] = PrivateAttr(
        default_factory=_engine_arguments_of_environment
    )

    @property
    def engine_arguments(self) -> dict[str, str]:
        """vLLM's engine arguments that the environment sets, by name."""
        return self._engine_arguments

    @property
    def random_weights(self) -> bool:
        """True if vLLM loads random weights (`RERANK_ENGINE_LOAD_FORMAT=dummy`), to time a model
        whose weights are not at hand."""
        return self.engine == "vllm" and self.engine_arguments.get("load_format") == "dummy"

    @field_validator("adapters", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value

        folders: dict[str, str] = {}
        for entry in value.split(","):
            if not entry.strip():
                continue
            name, _, folder = (part.strip() for part in entry.partition("="))
            if not name or not folder or name in folders or len(folders) == MAX_ADAPTERS:
                raise PydanticCustomError("adapters", _ADAPTERS)
            folders[name] = folder
        return folders
