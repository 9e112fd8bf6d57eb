"""The dialects of each path, in the order in which they are tried.

The module depends on every dialect, and no dialect depends on it. Invariant: the last dialect of a
path matches every request; errors that come before the body is read are written in its shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.gateway.dialects.dashscope import DASHSCOPE
from service.gateway.dialects.dialect import Dialect, RequestMarks
from service.gateway.dialects.elasticsearch import ELASTICSEARCH
from service.gateway.dialects.elasticsearch_client import ELASTICSEARCH_CLIENT
from service.gateway.dialects.infinity import INFINITY
from service.gateway.dialects.mixedbread import MIXEDBREAD
from service.gateway.dialects.native import NATIVE, NATIVE_WITH_DATA
from service.gateway.dialects.nim import NIM, NIM_MARKED
from service.gateway.dialects.openrouter import OPENROUTER
from service.gateway.dialects.sglang import SGLANG
from service.gateway.dialects.tei import HUGGING_FACE, TEI
from service.gateway.dialects.vllm_score import VLLM_SCORE
from service.gateway.dialects.voyage import VOYAGE
from service.gateway.dialects.weaviate import WEAVIATE

DIALECTS: Mapping[str, Sequence[Dialect]] = {
    "/rerank": (TEI, WEAVIATE, ELASTICSEARCH_CLIENT, VOYAGE, NATIVE),
    "/v1/rerank": (TEI, ELASTICSEARCH_CLIENT, VOYAGE, NATIVE_WITH_DATA),
    "/v2/rerank": (ELASTICSEARCH_CLIENT, NATIVE),
    "/api/v1/rerank": (OPENROUTER,),
    "/": (TEI, HUGGING_FACE),
    "/invocations": (TEI, NATIVE),
    "/v1/ranking": (NIM,),
    "/v1/retrieval/{publisher:path}/reranking": (NIM,),
    "/reranking": (NIM_MARKED, MIXEDBREAD, NATIVE),
    "/v1/reranking": (NIM_MARKED, MIXEDBREAD, NATIVE),
    "/score": VLLM_SCORE,
    "/v1/score": VLLM_SCORE,
    "/api/v1/services/rerank/text-rerank/text-rerank": (DASHSCOPE,),
    "/compatible-api/v1/reranks": (NATIVE,),
    "/_inference/rerank/{model:path}": (ELASTICSEARCH,),
    "/_inference/{model:path}": (ELASTICSEARCH,),
    "/sglang/v1/rerank": (SGLANG,),
    "/infinity/rerank": (INFINITY,),
}
"""The dialects by path; a path may have parameters, as FastAPI writes them."""


def choose(dialects: Sequence[Dialect], marks: RequestMarks) -> Dialect:
    """The first of a path's dialects that matches a request."""
    return next(dialect for dialect in dialects if dialect.matches(marks))
