"""Items: a query or a document of a request, a text, an image, or both.

Depends on pydantic for their validation, on no HTTP. Invariant: an item that was validated has a
text or an image, and each of its parts has a location in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from service.errors import Loc
from service.fields import MAX_ITEM_PARTS, Identifier, Metadata


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


class ItemFields(_Strict):
    """A query or a document: a text, an image, or both.

    A string is an item with that text, a list one with that content. An image is a data URL, bare
    base64, or an `https://` URL where the operator allows it.
    """

    __qualname__ = "Item"  # the schema's name in the OpenAPI document
    model_config = ConfigDict(title="Item")

    text: str | None = None
    image: str | None = None
    content: list[ContentPart] | None = Field(None, max_length=MAX_ITEM_PARTS)
    id: Identifier | None = Field(None, description="Returned with the item's result.")
    metadata: Metadata | None = Field(
        None, description="Up to 16 KiB; never scored, and returned with the item's result."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_string_or_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"text": value}
        return {"content": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _is_neither_empty_nor_ambiguous(self) -> Self:
        if self.content is not None and (self.text is not None or self.image is not None):
            raise PydanticCustomError("content", "Use either content, or text and image.")
        if not self.text and not self.item().parts():
            raise PydanticCustomError("empty_item", "An item needs a text or an image.")
        return self

    def item(self) -> Item:
        """The item with these fields."""
        return Item(self.text, self.image, self.content, self.id, self.metadata)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        item = handler(schema)
        content = handler.resolve_ref_schema(item)["properties"]["content"]
        (parts,) = [each for each in content["anyOf"] if each["type"] == "array"]
        return {"anyOf": [{"type": "string"}, item, parts]}


class Item(msgspec.Struct, frozen=True):
    """A query or a document that was read: a text, an image, or both.

    A struct, because a request has many and a model takes many times as long to make. As the type
    of a model's field, it is validated as `ItemFields`.
    """

    text: str | None = None
    image: str | None = None
    content: list[ContentPart] | None = None
    id: str | int | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def validated(cls, value: Any) -> Item:
        """The item of a JSON value; raises pydantic's `ValidationError`."""
        return ItemFields.model_validate(value).item()

    @property
    def is_text(self) -> bool:
        """True for an item that is one text, as nearly every document is."""
        return bool(self.text) and self.image is None and self.content is None

    def parts(self) -> list[ItemPart]:
        """The item's texts and images that are not empty, in order.

        Without `content`, the image is before the text.
        """
        if self.text and self.is_text:
            return [ItemPart(("text",), self.text)]

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
        if self.text and self.is_text:
            return [self.text]
        return [part.text for part in self.parts() if part.text]

    def images(self) -> list[str]:
        """The image sources of `parts`: URLs, data URLs or base64."""
        if self.is_text:
            return []
        return [part.image for part in self.parts() if part.image]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any, validate: Callable[[Any], ItemFields]) -> Item:
            return value if isinstance(value, Item) else validate(value).item()

        return core_schema.no_info_wrap_validator_function(read, handler(ItemFields))
