"""The model card: data, settings, figures, lineage and parity, from what was given and what was
measured.

Knows texts. Invariant: it says nothing that was not given or measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.adapters.folder import LoraFolder
from model_store.checkpoint import Checkpoint
from model_store.manifest import Manifest
from model_store.training.publish.pairs import PublishRefused
from model_store.training.publish.parity import WAYS, Parity
from model_store.training.publish.scripts import section

MAX_GIVEN_BYTES = 2**20
_NOTHING = "Nothing was stated."
_OPENING = [
    (
        "A pointwise reranker: it reads a query and a document, each text, images, or both, and"
        " answers yes or no; the score"
    ),
    "is logit(yes) - logit(no).",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What only the people who trained it can say: free lines, a settings file, figures by name,
    and a text to begin with."""

    about: str | None = None
    data: Sequence[str] = ()
    licence: str = "not stated"
    config: str | None = None
    metrics: dict[str, float] | None = None

    def lineage(self) -> dict[str, Any]:
        """The same for the manifest; the settings by their digest, since the card has their
        text."""
        config = hashlib.sha256(self.config.encode()).hexdigest() if self.config else None
        return {
            "data": list(self.data),
            "licence": self.licence,
            "config_sha256": config,
            "metrics": self.metrics or {},
        }


def read_story(
    *,
    data: Sequence[str],
    licence: str,
    config: Path | None,
    metrics: Path | None,
    about: Path | None = None,
) -> Story:
    """A story from the command line and its files; raises `PublishRefused` that names the file."""
    return Story(
        about=_read(about) if about else None,
        data=data,
        licence=licence,
        config=_read(config) if config else None,
        metrics=_figures(metrics) if metrics else None,
    )


def _figures(path: Path) -> dict[str, float]:
    try:
        found = json.loads(_read(path))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(
        isinstance(each, int | float) and math.isfinite(each) for each in found.values()
    ):
        raise PublishRefused(f"{path.name} is not one JSON object of finite numbers.")
    return found


def card(
    name: str, base: Checkpoint, adapter: LoraFolder, parity: Parity, story: Story, *, merged: bool
) -> str:
    """The card's text."""
    opening = [story.about.strip(), "", "## How it was made"] if story.about else _OPENING
    how = (
        "merged into its weights"
        if merged
        else "published alone: serve the base and name this folder in `RERANK_ADAPTERS`"
    )
    modules, read = adapter.config.get("target_modules"), base.manifest
    return "\n".join(
        [
            f"# {name}",
            "",
            *opening,
            "",
            f"A LoRA adapter on {base.name}, {how}.",
            "",
            f"- Base: {base.name}, digest `{base.digest}`.",
            (
                f"- Adapter: rank {adapter.rank}, alpha {adapter.config.get('lora_alpha')}, on"
                f" {_modules(modules)}."
            ),
            (
                f"- Prompt: family {read.family}, template {read.template}, at most"
                f" {read.max_tokens} tokens."
            ),
            *_images(read),
            f"- Licence: {story.licence}.",
            "",
            *section(base.family.tokenizer, read.max_tokens),
            "",
            *_told(story),
            "## Parity",
            "",
            f"{len(parity.pairs)} golden pairs, in logits; all of them are in `parity.json`.",
            "",
            *_table(
                ("way", "held against", "largest deviation", "allowed"),
                [
                    (WAYS[way], against, f"{worst:.2e}", f"{allowed:g}")
                    for way, (against, worst, allowed) in parity.deviations.items()
                ],
            ),
            "",
        ]
    )


def _told(story: Story) -> list[str]:
    """What was given: data, figures, settings."""
    figures = [(key, f"{value:g}") for key, value in (story.metrics or {}).items()]
    return [
        "## Data",
        "",
        *([f"- {line}" for line in story.data] or [_NOTHING]),
        "",
        "## Figures",
        "",
        *(_table(("measure", "value"), figures) if figures else [_NOTHING]),
        "",
        "## Settings",
        "",
        *(["```yaml", story.config.rstrip(), "```"] if story.config else [_NOTHING]),
        "",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _modules(stated: object) -> str:
    return ", ".join(sorted(map(str, stated))) if isinstance(stated, list) else f"`{stated}`"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_GIVEN_BYTES + 1)
        if len(content) > MAX_GIVEN_BYTES:
            raise PublishRefused(f"{path.name} is larger than {MAX_GIVEN_BYTES} bytes.")
        return content.decode()
    except OSError as error:
        raise PublishRefused(f"{path.name} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise PublishRefused(f"{path.name} is no UTF-8 text.") from None


def _images(manifest: Manifest) -> list[str]:
    """A line about the images that the model reads; none where it reads text only."""
    bounds = manifest.pixels
    return [f"- Images: {bounds.min_pixels} to {bounds.max_pixels} pixels."] if bounds else []
