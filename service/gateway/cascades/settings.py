"""The settings of cascades: their folders, and the sample of requests that guards them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode

from service.web.settings import split_list


class CascadeSettings(BaseModel):
    """The settings of cascades (`RERANK_CASCADES`, ...)."""

    model_config = ConfigDict(frozen=True)

    cascades: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        max_length=16,
        description="Folders of cascades, comma-separated, as `gmr publish --cascade` writes them.",
    )
    cascade_compare_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description=(
            "Share of the requests for cascades that are scored fully by the last stage, in the"
            " background, to measure agreement."
        ),
    )
    cascade_compare_seed: int = Field(
        0,
        ge=0,
        le=2**63 - 1,
        description="Seed of the sample of compared requests; gateways of equal seed take equal"
        " requests.",
    )

    _split_cascades = field_validator("cascades", mode="before")(split_list)
