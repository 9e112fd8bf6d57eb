"""The reliability diagram of a calibration, as a picture.

Depends on the description of a calibration and matplotlib, not on pairs. Invariant: the picture
appears whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # with no window and no global state

from model_store.calibration.description import BINS, Evidence, InstructionMap
from model_store.files import atomic_path

_COLUMNS = 4
_SIZE = 3.4
_TITLE_CHARS = 48


def draw(maps: Sequence[InstructionMap], path: Path) -> None:
    """Draw the share of relevant pairs against the mean held-out probability of each bin, one plot
    an instruction, to a PNG; raises `OSError`."""
    columns = min(_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    figure = Figure(figsize=(_SIZE * columns, (_SIZE + 0.6) * rows), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False)
    for axes, each in zip(plots.flat, maps, strict=False):
        _plot(axes, each)
    for axes in plots.flat[len(maps) :]:
        axes.set_axis_off()

    figure.suptitle("Probabilities of held-out pairs")
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=120, format="png")


def _plot(axes: Any, each: InstructionMap) -> None:
    bins = [one for one in each.evidence.bins if one.pairs]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="calibrated")
    most = max(one.pairs for one in bins)
    axes.scatter(
        [one.probability for one in bins],
        [one.relevant for one in bins],
        s=[_point(one.pairs / most) for one in bins],
        color="tab:blue",
        label=each.map.kind,
        zorder=3,
    )
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set(xlabel="probability", ylabel="share that is relevant")
    axes.set_title(f"{_short(each.instruction)}\n{_summary(each.evidence)}", fontsize=8)
    axes.grid(alpha=0.3)
    axes.set_box_aspect(1)

    counts = axes.twinx()
    centers = [(number + 0.5) / BINS for number in range(BINS)]
    sizes = [max(one.pairs, 0.5) for one in each.evidence.bins]
    counts.bar(centers, sizes, width=0.9 / BINS, color="tab:orange", alpha=0.25)
    counts.set(yscale="log", ylim=(0.5, 50 * max(sizes)), ylabel="pairs in a bin")
    axes.legend(loc="upper left", fontsize=7, framealpha=0.5)
    counts.set_box_aspect(1)


def _point(share: float) -> float:
    """The area of a bin's point, by its pairs in those of the fullest bin."""
    return 12 + 60 * math.sqrt(share)


def _summary(evidence: Evidence) -> str:
    found = evidence.held_out
    pairs = evidence.relevant + evidence.irrelevant
    return f"{pairs:,} pairs, ECE {found.ece:.3f} [{found.ece_low:.3f}, {found.ece_high:.3f}]"


def _short(text: str) -> str:
    return text if len(text) <= _TITLE_CHARS else f"{text[: _TITLE_CHARS - 3]}..."
