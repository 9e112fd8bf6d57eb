"""The metrics with their matchers in a PromQL expression, and the labels that it groups by.

The parser handles the expressions of this project, not all of PromQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SELECTOR = re.compile(
    r"\b((?:rerank|job|vllm|process|python|ALERTS)[_:][\w:]*|DCGM_\w+)(?:\{([^{}]*)\})?"
)
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPS = re.compile(r"\b(?:by|on|group_left)\s*\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric in an expression, with the label values that it selects."""

    text: str
    metric: str
    matchers: dict[str, Sequence[str]]


def selectors(expr: str) -> Iterator[Selector]:
    for found in _SELECTOR.finditer(expr):
        matchers = {label: values.split("|") for label, values in _MATCHER.findall(found[2] or "")}
        yield Selector(found[0], found[1], matchers)


def grouped_by(expr: str) -> set[str]:
    return {label.strip() for group in _GROUPS.findall(expr) for label in group.split(",")} - {""}
