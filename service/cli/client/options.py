"""Options of every command that calls a service: its URL, the model, and the API key.

Does not depend on httpx. Invariant: a key is never an argument, which other users of a machine can
read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        help="URL of the service; default: RERANK_URL, or http://127.0.0.1:8000.", metavar="URL"
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help=(
            "With a URL: the served model to ask. Without: a model to load in this process, such"
            " as gmr-tiny, with no server."
        ),
        metavar="NAME",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the API key; default: RERANK_KEY_FILE, or RERANK_KEY.", metavar="FILE"
    ),
]
