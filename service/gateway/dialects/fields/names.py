"""Names of a request's fields: the service's own, other vendors', and unknown ones.

The module depends on names, and on a value only where a field has two. Invariant: a field that has
no effect and that no vendor documents is named in a warning; the number and length of warnings are
bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from service.api import RerankRequest
from service.errors import InvalidRequest, Problem, path_of
from service.gateway.dialects.fields.messages import MAX_NAME

STEERING = ("cache_salt", "mm_processor_kwargs", "chat_template", "chat_template_kwargs", "uuid")
"""Fields that would let a client steer the engine; refused rather than ignored."""

SYNONYMS = {
    "instruct": "instruction",  # SGLang, DashScope
    "top_k": "top_n",  # Voyage, NIM, Mixedbread
    "truncation": "truncate",  # Voyage
    "return_text": "return_documents",  # TEI
}
"""Other vendors' names of the service's fields with the same meaning."""

IGNORED = frozenset(
    {
        "max_chunks_per_doc",  # Cohere v1
        "max_tokens_per_doc",  # Cohere v2, vLLM
        "priority",
        "relevant_spans",
        "overlap_tokens",  # Jina
        "max_doc_length",
        "return_embeddings",
        "raw_scores",  # Infinity: every result has its logit
        "return_len",  # Xinference
        "max_tokens_per_query",  # vLLM
        "truncate_prompt_tokens",
        "truncation_side",
        "use_activation",
        "padding",
        "request_id",
        "user",
    }
)
"""Fields that other vendors' clients send and that have no effect here; no warning names them."""

MAX_WARNINGS = 10
_KNOWN = frozenset(RerankRequest.model_fields)
READ = _KNOWN | frozenset((*STEERING, *SYNONYMS, "kwargs"))
"""Fields whose values are read. A long value of any other field need not be built."""
_EXPECTED = _KNOWN | IGNORED | {*SYNONYMS, *STEERING, "kwargs"}


def refuse_steering_fields(body: dict[str, Any]) -> None:
    """Raise `InvalidRequest` where a field would steer the engine."""
    problems = [
        Problem((name,), "This is not accepted here: it would steer the engine.")
        for name in STEERING
        if body.get(name) is not None
    ]
    if problems:
        raise InvalidRequest(problems=problems)


def with_own_names(
    body: dict[str, Any], names: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body with its fields under the service's names, and the vendor's name of each that had
    one.

    `names` has the service's name by the vendor's. Raises `InvalidRequest` where both are sent and
    their values differ.
    """
    renamed = dict(body)
    taken: dict[str, str] = {}
    for name, own in names.items():
        value = renamed.pop(name, None)
        if value is None:
            continue

        if renamed.get(own) not in (None, value):
            raise InvalidRequest(f"This must equal {own} where both are sent.").at((name,))
        renamed[own] = value
        taken[own] = name
    return renamed, taken


def unknown_field_warnings(names: Iterable[str]) -> list[str]:
    """A warning for each unknown name of a field, up to `MAX_WARNINGS`, and one with the number of
    the rest."""
    warnings: list[str] = []
    unnamed = 0
    for name in names:
        if name in _EXPECTED:
            continue
        if len(warnings) < MAX_WARNINGS:
            warnings.append(_warning(name[:MAX_NAME]))
        else:
            unnamed += 1

    if unnamed:
        warnings.append(f"{unnamed} more fields are not known and had no effect.")
    return warnings


def _warning(name: str) -> str:
    close = get_close_matches(name, _KNOWN, n=1)
    hint = f" Is {close[0]} meant?" if close else ""
    return f"{path_of((name,))} is not a known field and had no effect.{hint}"
