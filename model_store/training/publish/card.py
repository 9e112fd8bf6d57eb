"""The model card: data, settings, figures, lineage and parity.

Depends on texts. Invariant: every statement was given or measured.
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
from model_store.families.readout import GeneratedScore
from model_store.manifest import Manifest
from model_store.training.publish.pairs import PublishRefused
from model_store.training.publish.parity import WAYS, Parity, unit_of
from model_store.training.publish.portable import other_programs
from model_store.training.publish.scripts import section

MAX_GIVEN_BYTES = 2**20
_NOTHING = "Nothing was stated."


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The part of a card that only its authors can give: free lines, the settings' file, figures by
    name, and a text to begin with."""

    about: str | None = None
    data: Sequence[str] = ()
    licence: str = "not stated"
    config: str | None = None
    metrics: dict[str, float] | None = None

    def lineage(self) -> dict[str, Any]:
        """The same for the manifest; settings as their digest, since the card has their text."""
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
    """A story from the command line and files; raises `PublishRefused` that names the file."""
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
    if not isinstance(found, dict) or not all(map(_is_figure, found.values())):
        raise PublishRefused(f"{path.name} is not one JSON object of finite numbers.")

    return found


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def card(
    name: str,
    base: Checkpoint,
    target: Checkpoint,
    adapter: LoraFolder,
    parity: Parity,
    story: Story,
    *,
    published: Checkpoint | None,
) -> str:
    """The card's text.

    `target` is the base with the read-out and the template of the result, `published` the result
    itself; None where the adapter is published alone.
    """
    opening = _opening(target)
    if story.about:
        opening = [story.about.strip(), "", "## How it was made"]
    how = "published alone: serve the base and name this folder in `RERANK_ADAPTERS`"
    others: list[str] = []
    if published:
        how = "merged into its weights"
        others = [*other_programs(published, parity.versions.get("vllm")), ""]

    modules, manifest = _modules(adapter.config.get("target_modules")), base.manifest
    alpha = adapter.config.get("lora_alpha")
    lines = [
        f"# {name}",
        "",
        *opening,
        "",
        f"A LoRA adapter on {base.name}, {how}.",
        "",
        f"- Base: {base.name}, digest `{base.digest}`.",
        f"- Adapter: rank {adapter.rank}, alpha {alpha}, on {modules}.",
        (
            f"- Prompt: family {manifest.family}, template {target.manifest.template}, at most"
            f" {manifest.max_tokens} tokens."
        ),
        *_images(manifest),
        f"- Licence: {story.licence}.",
        "",
        *section(base.family.tokenizer, manifest.max_tokens),
        "",
        *others,
        *_given(story),
        *parity_section(parity),
    ]
    return "\n".join(lines)


def _opening(target: Checkpoint) -> list[str]:
    reads = "each text, images, or both" if target.family.images else "both texts"
    if isinstance(target.readout, GeneratedScore):
        bounds = f"{target.readout.lowest} to {target.readout.highest}"
        return [
            f"A pointwise reranker: it reads a query and a document, {reads}, thinks, and writes a",
            f"number from {bounds}; the score is the number times its probability.",
        ]
    answers = " or ".join(target.family.readouts[0].labels)
    return [
        (
            f"A pointwise reranker: it reads a query and a document, {reads}, and"
            f" answers {answers}; the score"
        ),
        f"is {unit_of(target.readout)}.",
    ]


def _images(manifest: Manifest) -> list[str]:
    """A line on the sizes of images; none for a family that reads text only."""
    bounds = manifest.pixels
    return [f"- Images: {bounds.min_pixels} to {bounds.max_pixels} pixels."] if bounds else []


def _given(story: Story) -> list[str]:
    """Data, figures and settings."""
    data = [f"- {line}" for line in story.data] or [_NOTHING]
    figures = [_NOTHING]
    if story.metrics:
        rows = [(name, f"{value:g}") for name, value in story.metrics.items()]
        figures = _table(("measure", "value"), rows)
    settings = [_NOTHING]
    if story.config:
        settings = ["```yaml", story.config.rstrip(), "```"]

    lines: list[str] = []
    for title, section_lines in (("Data", data), ("Figures", figures), ("Settings", settings)):
        lines += [f"## {title}", "", *section_lines, ""]

    return lines


def parity_section(parity: Parity) -> list[str]:
    """The card's lines on parity."""
    rows: list[Sequence[str]] = []
    for way, (against, largest, allowed) in parity.deviations.items():
        rows.append((WAYS[way], against, f"{largest:.2e}", f"{allowed:g}"))
    return [
        "## Parity",
        "",
        f"{len(parity.pairs)} golden pairs, in logits; all of them are in `parity.json`.",
        "",
        *_table(("way", "held against", "largest deviation", "allowed"), rows),
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
