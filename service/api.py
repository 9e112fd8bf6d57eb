"""The public request and answer of `POST /rerank`; they make the OpenAPI page.

Depends on no HTTP. Requests are pydantic models; results are dataclasses, built without validation.
Invariant: every field that a client may send or receive is here, those of items in `items`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.fields import (
    MinScoreOn,
    Probability,
    RankFields,
    Score,
    TimeoutMs,
    TopN,
    Truncation,
)
from service.items import Item


class Options(BaseModel):
    """The options of a rerank request, which every dialect takes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = Field(
        None,
        max_length=256,
        description='A served model or an alias; default, also for "": the first served model.',
    )
    instruction: str | None = Field(
        None, description="The task that the model is instructed with; default: the model's own."
    )
    top_n: TopN | None = Field(None, description="Maximum number of results; 0: all.")
    return_documents: bool = Field(False, description="Return the text of each result's document.")
    min_score: Score | None = Field(
        None, description="Minimum relevance_score of a result; lower ones are left out."
    )
    min_score_on: MinScoreOn = "relevance_score"
    truncate: Truncation = "end"
    on_error: Literal["fail", "skip"] | None = Field(
        None,
        description=(
            "`fail`: one invalid document fails the request; `skip`: it is listed in `errors`;"
            " default: the operator's setting, which is `fail` by default."
        ),
    )
    timeout_ms: TimeoutMs | None = Field(
        None, description="Milliseconds until the request's deadline; default: the operator's."
    )
    cache: Literal["use", "bypass", "refresh"] = Field(
        "use",
        description=(
            "`bypass` neither reads nor writes cached scores; `refresh` scores every document and"
            " overwrites them."
        ),
    )
    rank_fields: RankFields | None = Field(
        None,
        description=(
            "Fields of a document that are ranked as its text, in this order; documents may then"
            " have any other fields."
        ),
    )


class _Query(BaseModel):
    query: Item


class RerankOptions(Options, _Query):
    """A rerank request without its documents, which are validated one by one."""


class RerankRequest(RerankOptions):
    """The body of `POST /rerank`. Fields that clients of other vendors send are ignored where they
    are harmless."""

    documents: list[Item] = Field(
        min_length=1, description="The documents to rank; one may be sent without a list."
    )


@dataclass(slots=True, kw_only=True)
class ResultMeta:
    """The tokens of one pair, whether its text was truncated, and whether its score was cached."""

    prompt_tokens: int
    image_tokens: int
    truncated: bool
    cached: bool
    completion_tokens: Annotated[
        int | None,
        Field(description="Of models that write their score: its tokens; 0 for a cached score."),
    ] = None
    stage: Annotated[int | None, Field(description="Of cascades: the stage that scored it.")] = None


@dataclass(slots=True, kw_only=True)
class ReturnedDocument:
    """The text of a document."""

    text: str


@dataclass(slots=True, kw_only=True)
class Result:
    """One ranked document."""

    index: int
    relevance_score: Annotated[
        float, Field(description="The model's transform of `logit`, such as sigmoid(logit).")
    ]
    logit: Annotated[
        float,
        Field(
            description="The raw score in fp32, such as logit(yes) - logit(no). It orders results."
        ),
    ]
    probability: Probability | None = None
    id: str | int | None = None
    metadata: Annotated[dict[str, Any] | None, Field(description="The document's metadata.")] = None
    document: ReturnedDocument | None = None
    meta: ResultMeta


class DocumentError(BaseModel):
    """A document without a score, and its error."""

    index: int
    code: str
    message: str


class Usage(BaseModel):
    """Numbers of tokens, in OpenAI's shape."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = Field(
        None, description="Of models that write their scores: the tokens written for this request."
    )


class AnswerMeta(BaseModel):
    """The model's digest and cached pairs; tokens and units in the shapes of other vendors."""

    model_digest: str
    cached_pairs: int
    tokens: dict[str, int]
    billed_units: dict[str, int]
    warnings: list[str] | None = Field(
        None, description="Fields of the request that had no effect, such as a misspelt one."
    )


class RerankAnswer(BaseModel):
    """The answer to `POST /rerank`: results by descending logit, then by ascending index."""

    id: str
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[Result]
    errors: list[DocumentError]
    usage: Usage
    meta: AnswerMeta


class RerankAnswerWithData(RerankAnswer):
    """The answer of `/v1/rerank`, where clients of Voyage read `data`."""

    data: list[Result] = Field(description="The same list as `results`.")
