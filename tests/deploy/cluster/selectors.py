"""Which labels a selector means, in its two spellings: an object's and a query's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Labels = Mapping[str, str]


def selects(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a `LabelSelector` covers the labels; an empty one covers all, none at all covers
    none."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(
        _expression_holds(expression, labels)
        for expression in selector.get("matchExpressions") or []
    )


def _expression_holds(expression: Mapping[str, Any], labels: Labels) -> bool:
    key, operator, values = (
        expression["key"],
        expression["operator"],
        expression.get("values") or [],
    )
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[operator]


def query_selects(query: str, labels: Labels) -> bool:
    """The same for `?labelSelector=`: `a=b,c!=d,e in (f,g),h notin (i),j,!k`."""
    return all(
        _term_holds(term.strip(), labels)
        for term in re.split(r",(?![^(]*\))", query)
        if term.strip()
    )


def _term_holds(term: str, labels: Labels) -> bool:
    if members := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", term):
        key, operator, values = members.groups()
        return (labels.get(key) in [value.strip() for value in values.split(",")]) == (
            operator == "in"
        )
    if comparison := re.fullmatch(r"([^=!]+)(!=|==|=)([^=]*)", term):
        key, operator, value = (part.strip() for part in comparison.groups())
        return (labels.get(key) == value) == (operator != "!=")
    return term[1:] not in labels if term.startswith("!") else term in labels
