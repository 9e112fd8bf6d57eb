"""The dimensions of gmr-mini's states: gmr-tiny's, and its own.

Depends on gmr-tiny's sizes alone. Invariant: each dimension has one name.
"""

from __future__ import annotations

from model_store.recipes.tiny import network as tiny

OWN = tiny.HIDDEN
"""Dimensions of gmr-tiny's states."""
NEW = 128
HIDDEN = OWN + NEW
HEAD = OWN // tiny.HEADS
NEW_HEADS = range(tiny.HEADS, HIDDEN // HEAD)

WIDTH = NEW - 10
"""Components of a meaning."""
NOTHING = OWN + WIDTH
"""The component that the mean of no tokens has alone."""
MEANING = slice(OWN, NOTHING + 1)
(
    WEIGHT, ONE, AT_DOCUMENT, AT_QUERY, AT_START, AT_END, AT_ANSWER, SIDE, SCORE,
) = range(NOTHING + 1, HIDDEN)  # fmt: skip
"""A token's log weight, a constant, marks of five of the prompt's tokens, the side that a token is
on (1 the document's, -1 the query's), and the score."""

UNIT = 0.1
"""Of the new dimensions: what a layer's norm makes 1 of, in a state as long as an embedding."""
WEIGHT_UNIT = 0.01
SIDE_LOGIT = 6.0
"""A token's logit for the side that it is on, in a state of the usual length."""
