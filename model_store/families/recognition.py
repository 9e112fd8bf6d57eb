"""The family of a folder without a manifest: the facts that tell families apart, and the answer.

Depends on names and JSON, not on tensors or networks. Invariant: of two families that recognise one
folder, the one with the higher rank is chosen, and every choice has a reason that can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from model_store.manifest import PixelBounds


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A checkpoint's network as far as a prompt depends on it."""

    architecture: str
    vocabulary: int
    """Rows of the embeddings: an id is less."""
    image_token: str = ""
    """The text of an image's placeholder; empty where the network reads text only."""
    image_cell: int = 0
    """Pixels of the side of an image's token."""
    causal: bool = True
    """False where it reads both sides of a pair at once."""
    token_types: int = 0
    """Types of tokens that it tells apart, such as BERT's two; 0: it takes none."""
    positions: int = 0
    """The tokens that it has positions for; 0: no limit is known."""


@dataclass(frozen=True)
class FolderFacts:
    """A checkpoint's folder before its family is known."""

    name: str
    """A hub id, or the name of a local folder."""
    folder: Path
    config: Mapping[str, Any]
    """`config.json`."""
    network: NetworkFacts

    def is_named(self, pattern: str) -> Recognition | None:
        """The recognition by a regular expression that matches the folder's own name, or the one
        that `config.json` states; None where it matches neither."""
        own = _last(self.name)
        if re.search(pattern, own):
            return Recognition(Rank.NAMED, f"its name is {own}")

        stated = self.config.get("_name_or_path")
        if isinstance(stated, str) and re.search(pattern, _last(stated)):
            return Recognition(
                Rank.DERIVED, f"_name_or_path of its config.json is {_last(stated):.80}"
            )
        return None


class Rank(IntEnum):
    """The certainty of a recognition."""

    ASSUMED = 1
    """The network fits, and nothing says more."""
    DERIVED = 2
    """`config.json` states the name of a checkpoint of the family, from which this one was made."""
    DESCRIBED = 3
    """Files of the folder describe the prompt and the read-out."""
    NAMED = 4
    """The folder has the name under which the family's authors published it."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """A family's answer to a folder that it can read; `reason` is a clause for people."""

    rank: Rank
    reason: str


def _last(name: str) -> str:
    """The last part of a hub id or path, in lower case."""
    return name.rstrip("/").rpartition("/")[2].lower()


@dataclass(frozen=True, slots=True)
class Description:
    """The fields of a manifest that a family decides for a folder without one."""

    template: str
    default_instruction: str
    max_tokens: int
    pixels: PixelBounds | None
    """Bounds on an image's area where the folder's processor states none; None: text only."""
    most_pixels: int | None = None
    """The largest area of an image that the folder's processor may state; None: that of
    `pixels`."""
    read_out: str = ""
    transform: str = "sigmoid"
    stated: frozenset[str] = frozenset()
    """Names of the fields above that files of the folder state; the others are the family's
    defaults."""
