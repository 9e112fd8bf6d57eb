"""The public request and answer of `POST /rerank`, as pydantic models; they make the OpenAPI page.

The module has types and bounds and depends on no HTTP. Invariant: every field that a client may
send or receive is here, and `docs/api.md` has what a schema cannot express.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from service.errors import Loc
from service.fields import MAX_ITEM_PARTS, Identifier, Metadata, RankFields, Score, TimeoutMs, TopN


class Limits(BaseModel):
    """Bounds of one request (API, section 5), as settings of a gateway. `/info` shows them."""

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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageUrl(_Strict):
    """An image's source: a data URL, or an `https://` URL where the operator allows it."""

    url: str
    detail: str | None = Field(
        None, max_length=16, description="Accepted for OpenAI clients; has no effect."
    )


class ContentPart(_Strict):
    """A text or an image in a list of content parts, in the shape of OpenAI and vLLM."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _holds_only_its_type(self) -> Self:
        has_text, has_image = self.text is not None, self.image_url is not None
        if has_text != (self.type == "text") or has_image != (self.type == "image_url"):
            raise PydanticCustomError("part", "A part holds what its type names, and only that.")
        return self


class ItemPart(NamedTuple):
    """A text of an item or the source of an image, and its location in the item."""

    loc: Loc
    text: str = ""
    image: str = ""


class Item(_Strict):
    """A query or a document: a text, an image, or both.

    A string is an item with that text. An image is a data URL, bare base64, or an `https://` URL
    where the operator allows it.
    """

    text: str | None = None
    image: str | None = None
    content: list[ContentPart] | None = Field(None, max_length=MAX_ITEM_PARTS)
    id: Identifier | None = Field(None, description="Sent back with the item's result.")
    metadata: Metadata | None = Field(
        None, description="Up to 16 KiB; never scored, sent back with the item's result."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_neither_empty_nor_ambiguous(self) -> Self:
        if self.content is not None and (self.text is not None or self.image is not None):
            raise PydanticCustomError("content", "Use either content, or text and image.")
        if not self.parts():
            raise PydanticCustomError("empty_item", "An item needs a text or an image.")
        return self

    def parts(self) -> list[ItemPart]:
        """The item's texts and images that are not empty, in order.

        Without `content`, the image is before the text.
        """
        parts: list[ItemPart] = []
        if self.image:
            parts.append(ItemPart(("image",), image=self.image))
        if self.text:
            parts.append(ItemPart(("text",), text=self.text))

        for index, part in enumerate(self.content or ()):
            if part.text:
                parts.append(ItemPart(("content", index, "text"), text=part.text))
            if part.image_url and part.image_url.url:
                loc = ("content", index, "image_url", "url")
                parts.append(ItemPart(loc, image=part.image_url.url))
        return parts

    def texts(self) -> list[str]:
        """The texts of `parts`."""
        return [part.text for part in self.parts() if part.text]

    def images(self) -> list[str]:
        """The image sources of `parts`: URLs, data URLs or base64."""
        return [part.image for part in self.parts() if part.image]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


class RerankOptions(BaseModel):
    """A rerank request without its documents, which are validated one by one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    query: Item
    model: str | None = Field(
        None,
        max_length=256,
        description='A served model or an alias; default, and for "": the first.',
    )
    instruction: str | None = Field(
        None, description="The task, in the model's words; default: the model's own."
    )
    top_n: TopN | None = Field(None, description="How many results are sent back; 0: all.")
    return_documents: bool = False
    min_score: Score | None = None
    truncate: Literal["end", "none"] = "end"
    on_error: Literal["fail", "skip"] | None = Field(
        None,
        description=(
            "Whether one bad document fails the request, or is listed in `errors`; "
            "default: as the operator has set it (`fail` unless it was changed)."
        ),
    )
    timeout_ms: TimeoutMs | None = None
    cache: Literal["use", "bypass", "refresh"] = "use"
    rank_fields: RankFields | None = Field(
        None,
        description=(
            "Fields of object documents that are read as their text, in this order; "
            "documents may then have any other fields, too."
        ),
    )


class RerankRequest(RerankOptions):
    """The body of `POST /rerank` (API, section 1). Other vendors' harmless fields are ignored."""

    documents: list[Item] = Field(
        min_length=1, description="A bare item is taken as a list of one."
    )


class ResultMeta(BaseModel):
    """What one score cost and whether it was cut or known already."""

    prompt_tokens: int
    image_tokens: int
    truncated: bool
    cached: bool


class ReturnedDocument(BaseModel):
    """A document sent back: its text."""

    text: str


class Result(BaseModel):
    """One ranked document."""

    index: int
    relevance_score: float = Field(description="sigmoid(logit)")
    logit: float = Field(description="logit(yes) - logit(no), fp32")
    id: str | int | None = None
    metadata: dict[str, Any] | None = Field(None, description="The document's own, as it was sent.")
    document: ReturnedDocument | None = None
    meta: ResultMeta


class DocumentError(BaseModel):
    """A document that has no score, and why."""

    index: int
    code: str
    message: str


class Usage(BaseModel):
    """Tokens in the shape OpenAI clients read."""

    prompt_tokens: int
    total_tokens: int


class AnswerMeta(BaseModel):
    """What served the request, and tokens and units in the shapes other vendors' clients read."""

    model_digest: str
    cached_pairs: int
    tokens: dict[str, int]
    billed_units: dict[str, int]
    warnings: list[str] | None = Field(
        None, description="What was sent and had no effect, such as a misspelt field."
    )


class RerankAnswer(BaseModel):
    """Results by falling logit, equal ones by rising index."""

    id: str
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[Result]
    errors: list[DocumentError]
    usage: Usage
    meta: AnswerMeta


class ErrorPlace(BaseModel):
    """What is wrong at one place of the request."""

    loc: list[str | int]
    message: str


class ErrorBody(BaseModel):
    """The body of every answer that is not a success (API, section 4). `detail` repeats `message`:
    clients read either."""

    code: str
    message: str
    detail: str
    request_id: str
    errors: list[ErrorPlace] | None = None
