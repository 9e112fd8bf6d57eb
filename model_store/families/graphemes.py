"""Cuts between grapheme clusters, which a reader sees as one character each.

Depends on Unicode's extended grapheme clusters (UAX 29), not on tokens. Invariant: the work depends
on a fixed number of code points around the cut, not on the length of the text.
"""

from __future__ import annotations

import regex

LONGEST_CLUSTER = 32
"""Code points of the longest cluster that is never broken; a longer one may be broken after so
many. The longest emoji that Unicode recommends for interchange has 11, and normal text has at most
30 combining marks on a letter (UAX 15, stream-safe text)."""

_WINDOW = 8 * LONGEST_CLUSTER
_CLUSTER = regex.compile(r"\X")
_FLAG_LETTER = regex.compile(r"\p{Regional_Indicator}")


def boundary(text: str, index: int) -> int:
    """The last index in `text`, at most `index` (code points), at which a cut breaks no cluster."""
    if not 0 < index < len(text):
        return min(max(index, 0), len(text))
    if text[index - 1 : index + 1].isascii() and text[index - 1] != "\r":
        return index

    start = _window_start(text, index)
    last = start
    for cluster in _CLUSTER.finditer(text, start, index + 1):
        if cluster.end() > index:
            break
        last = cluster.end()
    return index if index - last >= LONGEST_CLUSTER else last


def _window_start(text: str, index: int) -> int:
    """The index from which clusters are counted.

    Flags are pairs of letters: a run of them is entered between two pairs.
    """
    start = max(0, index - _WINDOW)
    if not _FLAG_LETTER.match(text, start):
        return start

    first = start
    while first > 0 and _FLAG_LETTER.match(text, first - 1):
        first -= 1
    return start - (start - first) % 2
