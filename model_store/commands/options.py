"""Options that several commands of `gmr` have, declared once with their help and their bounds.

Does not depend on what a command does with them.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

MAX_SEED = 2**63 - 1


class ImageModeOption(StrEnum):
    """The treatment of images outside the folder of the rows that name them."""

    reference = "reference"
    copy = "copy"
    link = "link"


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinity, as an option's callback: NaN passes every bound."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it must be a number")
    return value


Source = Annotated[Path, typer.Argument(help="Training rows, .jsonl or .jsonl.gz.")]
Model = Annotated[
    str,
    typer.Argument(help="A name that ships, a folder, NAME@production, or NAME@sha256:..."),
]
Family = Annotated[
    str | None,
    typer.Option(
        "--family",
        envvar="RERANK_MODEL_FAMILY",
        help="Model family of a model without a manifest, where its files do not tell.",
        metavar="NAME",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(envvar="RERANK_MODEL_REVISION", help="Commit of a hub model, 40 hex digits."),
]
Registry = Annotated[
    str | None,
    typer.Option(
        envvar="RERANK_REGISTRY", help="Folder or URL (s3://, gs://, ...) of the registry."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(envvar="RERANK_MODEL_CACHE", help="Folder that keeps pulled models."),
]
Device = Literal["auto", "cpu", "cuda"]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds give equal results.")]
Images = Annotated[
    ImageModeOption,
    typer.Option(
        help=(
            "Images outside the folder of the written file: link or copy them into its images/, or"
            " refuse them (reference)."
        )
    ),
]
