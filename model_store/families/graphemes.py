"""Where a text may be cut without breaking what a reader sees as one character.

Knows Unicode's extended grapheme clusters (UAX 29), no tokens. Invariant: the work depends on a
fixed number of code points around the place, not on the length of the text.
"""

from __future__ import annotations

import regex

LONGEST_CLUSTER = 32
"""Code points of a cluster that is never broken. The longest emoji that Unicode recommends for
interchange has 11; normal text has at most 30 combining marks on a letter (UAX 15,
stream-safe text). A cluster that is longer may be broken after so many."""

_WINDOW = 8 * LONGEST_CLUSTER
_CLUSTER = regex.compile(r"\X")
_FLAG_LETTER = regex.compile(r"\p{Regional_Indicator}")


def boundary(text: str, place: int) -> int:
    """The last place in `text`, at most `place` (code points), where a cut breaks no cluster."""
    if not 0 < place < len(text):
        return min(max(place, 0), len(text))
    if text[place - 1 : place + 1].isascii() and text[place - 1] != "\r":
        return place

    start = _window_start(text, place)
    last = start
    for cluster in _CLUSTER.finditer(text, start, place + 1):
        if cluster.end() > place:
            break
        last = cluster.end()
    return place if place - last >= LONGEST_CLUSTER else last


def _window_start(text: str, place: int) -> int:
    """Where to begin to look for clusters. Flags are pairs: a run of them is entered at a pair."""
    start = max(0, place - _WINDOW)
    if not _FLAG_LETTER.match(text, start):
        return start
    first = start
    while first > 0 and _FLAG_LETTER.match(text, first - 1):
        first -= 1
    return start - (start - first) % 2
