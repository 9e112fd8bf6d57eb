"""The public requests and answers of `/v1/images`, as pydantic models; they make the OpenAPI page.

The module has types and bounds and depends on no HTTP. Invariant: every field that a client may
send or receive there is here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_DIGESTS = 10_000
"""Digests of one `POST /v1/images/missing`."""

Reference = Annotated[
    str, Field(max_length=128, description="`sha256:` and 64 hexadecimal digits.")
]


class StoredImage(BaseModel):
    """An image that was stored."""

    digest: str = Field(description="What an item's `image` may be from now on: `sha256:...`.")
    bytes: int
    width: int
    height: int
    expires_at: int = Field(
        description="When it is gone if no request refers to it, in Unix seconds; sooner where"
        " memory is short."
    )


class RefusedImage(BaseModel):
    """The error that an image has instead, at its place."""

    code: str
    message: str


class PutImagesAnswer(BaseModel):
    """The answer of `PUT /v1/images`: an entry for each image, in their order."""

    images: list[StoredImage | RefusedImage]


class MissingImagesRequest(BaseModel):
    """The body of `POST /v1/images/missing`."""

    model_config = ConfigDict(frozen=True)

    digests: list[Reference] = Field(max_length=MAX_DIGESTS)


class MissingImagesAnswer(BaseModel):
    """The digests of a request that are not stored, in their order; the others are kept for their
    whole time again."""

    missing: list[str]
