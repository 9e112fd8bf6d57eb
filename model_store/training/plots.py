"""The curves of a run as a picture: losses, the weights W+ and W- (the paper's figure 3), and
nDCG@10 of held-out rows.

Depends on the journal's rows and matplotlib, not on a network. Invariant: the picture shows the
journal as it is, so it may be drawn during the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store.files import atomic_path
from model_store.training.config import TrainingError
from model_store.training.journal import METRICS, read_metrics

PLOT = "training.png"
_WINDOW = 50
"""Steps that the smooth line averages at most."""
_INK, _PALE, _GREY = "#202124", "#e2e4e8", "#6b7075"
_BLUE, _ORANGE, _GREEN, _RED = "#1a6fc4", "#e07b00", "#2b9348", "#c2362b"
_DOTS: dict[str, Any] = {"color": _GREEN, "marker": "o", "markersize": 4, "linewidth": 1.6}

Row = dict[str, float]


def draw(folder: Path) -> Path:
    """Draw `folder/training.png` from its metrics, whole or not at all; raises `TrainingError`."""
    rows = read_metrics(folder)
    trained = [row for row in rows if "sft" in row]
    held_out = [row for row in rows if "dev_sft" in row]
    if not trained:
        raise TrainingError(f"{folder / METRICS}: there is nothing to draw yet.")

    from matplotlib.figure import Figure  # with no window and no global state

    figure = Figure(figsize=(13, 4), layout="constrained")
    losses, weights, gains = figure.subplots(1, 3)
    _draw_losses(losses, trained, held_out)
    _draw_weights(weights, trained)
    _draw_gains(gains, held_out)

    last = max(row["step"] for row in rows)
    for axis in (losses, weights, gains):
        axis.set(xlabel="step", xlim=(-0.01 * last, 1.02 * last))
        axis.grid(color=_PALE, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(fontsize=11, fontweight="bold", color=_INK)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=9)

    try:
        with atomic_path(folder / PLOT) as draft:
            figure.savefig(draft, dpi=120, format="png")
    except OSError as error:
        raise TrainingError(f"{folder / PLOT}: it cannot be written ({error.strerror}).") from None

    return folder / PLOT


def _draw_losses(axis: Any, trained: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Losses of a group in training, and of held-out groups from before the first step."""
    steps = [row["step"] for row in trained]
    curve(axis, steps, [row["sft"] for row in trained], "SFT (eq. 4)", _BLUE)
    curve(axis, steps, [row["cl"] for row in trained], "CL (eq. 3)", _ORANGE)
    if held_out:
        at = [row["step"] for row in held_out]
        axis.plot(at, [row["dev_sft"] for row in held_out], label="SFT, held out", **_DOTS)

    lowest = min(min(row["sft"], row["cl"]) for row in trained)
    axis.set(title="Loss of a group", yscale="log" if lowest > 0 else "linear")


def _draw_weights(axis: Any, trained: Sequence[Row]) -> None:
    """The mean weights of positives and negatives."""
    steps = [row["step"] for row in trained]
    curve(axis, steps, [row["positive_weight"] for row in trained], "W+", _GREEN)
    curve(axis, steps, [row["negative_weight"] for row in trained], "W-", _RED)
    axis.set(title="Mean weight (the paper's figure 3)", ylim=(0, None))


def _draw_gains(axis: Any, held_out: Sequence[Row]) -> None:
    """nDCG@10 of held-out rows, from a line for the model before training to a mark for the best
    state."""
    if not held_out:
        axis.set(title="nDCG@10: nothing is held out", ylim=(0, 1))
        return

    at, gains = [row["step"] for row in held_out], [row["dev_ndcg"] for row in held_out]
    if at[0] == 0:
        label = f"before training: {gains[0]:.3f}"
        axis.axhline(gains[0], color=_GREY, linestyle="--", linewidth=1.2, label=label)
    axis.plot(at, gains, label=f"held out, last: {gains[-1]:.3f}", **_DOTS)

    top = max(range(len(gains)), key=gains.__getitem__)
    label = f"best: {gains[top]:.3f} after step {at[top]:,.0f}"
    style = {"markersize": 13, "color": _ORANGE, "linestyle": "none"}
    axis.plot(at[top], gains[top], "*", label=label, **style)
    axis.set(title="nDCG@10 of held-out rows", ylim=_around(gains))


def _around(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that shows small differences, within 0 and a little above 1."""
    low, high = min(values), max(values)
    margin = max(0.02, 0.15 * (high - low))
    return max(0.0, low - margin), min(1.02, high + margin)


def curve(
    axis: Any, steps: Sequence[float], values: Sequence[float], label: str, color: str
) -> None:
    """The values, pale, and a moving average of them."""
    width = max(1, min(_WINDOW, len(values) // 10))
    means: list[float] = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    axis.plot(steps, means, color=color, label=label, linewidth=1.6)
