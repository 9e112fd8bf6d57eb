"""Types of a request's fields that have bounds: numbers, ids, metadata.

The module depends on pydantic, on no field's meaning. Invariant: JSON's `true` is never read as a
number.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError, to_json

MAX_TOP_N = 1_000_000
MAX_TIMEOUT_MS = 60_000
MAX_ID_CHARS = 256
MAX_METADATA_BYTES = 16 * 1024
MAX_RANK_FIELDS = 16
MAX_ITEM_PARTS = 64
"""Texts and images of one item."""
_INT64 = 2**63
_ANSWER_LEVELS = 8
"""An answer nests metadata in fewer levels than this."""


def _integer(value: Any) -> Any:
    """Refuse JSON's `true`: in Python, `True` is an int."""
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    """Refuse JSON's `true`, as `_integer` does."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _truncation(value: Any) -> Any:
    """A truncation in another vendor's spelling: `"END"`, or a boolean."""
    spelled = value.casefold() if isinstance(value, str) else value
    if spelled in (True, "true"):
        return "end"
    return "none" if spelled in (False, "false") else spelled


def _identifier(value: Any) -> Any:
    """Refuse an id that is neither a short string nor a 64-bit integer."""
    if isinstance(value, str) and len(value) <= MAX_ID_CHARS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
        return value
    raise PydanticCustomError("identifier", "A string or an integer within bounds.")


def _small_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse metadata that is too large, or nested too deep to be written into an answer."""
    nested: Any = value
    for _ in range(_ANSWER_LEVELS):
        nested = [nested]

    try:
        size = len(to_json(nested)) - 2 * _ANSWER_LEVELS
    except ValueError:  # nested too deep
        size = MAX_METADATA_BYTES + 1
    if size > MAX_METADATA_BYTES:
        raise PydanticCustomError("metadata", "Metadata within bounds.")
    return value


Identifier = Annotated[
    Annotated[str, Field(max_length=MAX_ID_CHARS)]
    | Annotated[int, Field(ge=-_INT64, le=_INT64 - 1)],
    BeforeValidator(_identifier),
]
"""An item's id, which the answer repeats with the type that it was sent with."""
Metadata = Annotated[dict[str, Any], AfterValidator(_small_metadata)]
"""A JSON object of up to `MAX_METADATA_BYTES`, as UTF-8 without insignificant whitespace."""
TopN = Annotated[int, Field(ge=0, le=MAX_TOP_N), BeforeValidator(_integer)]
TimeoutMs = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS), BeforeValidator(_integer)]
Score = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
MinScoreOn = Annotated[
    Literal["relevance_score", "probability"],
    Field(
        description=(
            "`probability`: `min_score` is a minimum probability, which needs a calibration of the"
            " model for the instruction (`/info`)."
        )
    ),
]
Probability = Annotated[
    float, Field(description="Of a model that is calibrated for the instruction.")
]
Truncation = Annotated[
    Literal["end", "none"],
    BeforeValidator(_truncation),
    Field(
        description=(
            "`end` cuts the text of a pair that is longer than the model reads; `none` refuses the"
            " document. In upper case, or as `true` and `false`, too."
        )
    ),
]
RankField = Annotated[str, Field(min_length=1, max_length=64)]
RankFields = Annotated[list[RankField], Field(max_length=MAX_RANK_FIELDS)]
