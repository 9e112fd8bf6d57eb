"""The client's settings: the service's URL and the API key, from the environment (`RERANK_*`).

Does not depend on a gateway or a worker. Invariant: a key is never part of a message.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_URL = "http://127.0.0.1:8000"


class ClientSettings(BaseSettings):
    """All settings of the commands that call a service."""

    model_config = SettingsConfigDict(env_prefix="RERANK_", frozen=True, extra="ignore")

    url: str | None = Field(
        None,
        max_length=2_048,
        description=(
            "URL of the service that `gmr rerank`, `gmr bulk` and `gmr doctor` call; default:"
            f" {DEFAULT_URL}."
        ),
    )
    key: SecretStr | None = Field(
        None,
        max_length=4_096,
        description="API key that `gmr rerank`, `gmr bulk` and `gmr doctor` send.",
    )
    key_file: Path | None = Field(
        None, description="File with that key, which is read in place of RERANK_KEY."
    )
