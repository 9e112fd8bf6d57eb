"""Bounds of one request to `POST /rerank`, which are settings of a gateway.

The module depends on pydantic alone. Invariant: `/info` and the checks of a request use the same
object.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds of one request as settings of a gateway. `/info` shows them."""

    model_config = ConfigDict(frozen=True)

    max_documents: int = Field(
        1_000, ge=1, le=100_000, description="Maximum number of documents in a request."
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1_024, le=2**31, description="Maximum size, in bytes, of a request body."
    )
    max_json_delimiters: int = Field(
        250_000,
        ge=1_000,
        le=10_000_000,
        description=(
            "Maximum number of brackets and commas outside strings in a request's JSON; never"
            " less than 8 for each document allowed."
        ),
    )
    max_text_chars: int = Field(
        100_000, ge=1, le=10_000_000, description="Maximum number of characters in an item's text."
    )
    max_images_per_item: int = Field(
        4, ge=0, le=64, description="Maximum number of images in an item."
    )
    max_image_bytes: int = Field(
        10 * 2**20, ge=1_024, le=2**30, description="Maximum size, in bytes, of an encoded image."
    )
    max_image_pixels: int = Field(
        16_000_000, ge=4, le=200_000_000, description="Maximum number of pixels in an image."
    )
    max_request_pixels: int = Field(
        2_000_000_000,
        ge=4,
        le=10**12,
        description="Maximum number of pixels in all different images of a request together.",
    )
    min_image_side: int = Field(
        2, ge=1, le=1_000, description="Minimum length, in pixels, of an image's shorter side."
    )
    max_image_aspect: int = Field(
        200,
        ge=1,
        le=200,
        description="Maximum ratio of an image's longer side to its shorter side.",
    )
    max_put_images: int = Field(
        256, ge=1, le=10_000, description="Maximum number of images in a PUT of /v1/images."
    )
