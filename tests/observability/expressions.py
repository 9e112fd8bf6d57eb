"""What a PromQL expression names: metrics with their matchers, and labels that it groups by. A
parser for ours, not for all."""

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
    """A metric as an expression names it, and the values that it asks of labels."""

    text: str
    metric: str
    matchers: dict[str, Sequence[str]]


def selectors(expr: str) -> Iterator[Selector]:
    for found in _SELECTOR.finditer(expr):
        matchers = {label: values.split("|") for label, values in _MATCHER.findall(found[2] or "")}
        yield Selector(found[0], found[1], matchers)


def grouped_by(expr: str) -> set[str]:
    return {label.strip() for group in _GROUPS.findall(expr) for label in group.split(",")} - {""}
