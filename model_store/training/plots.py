"""The curves of a run as a picture: losses, and the weights W+ and W- (the paper's figure 3).

Depends on the journal's rows and matplotlib, not on a network. Invariant: the picture shows the
journal as it is, so it may be drawn during the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_store.files import atomic_path
from model_store.training.config import TrainingError
from model_store.training.journal import METRICS, read_metrics

PLOT = "training.png"
_WINDOW = 50
"""Steps that the smooth line averages at most."""


def draw(folder: Path) -> Path:
    """Draw `folder/training.png` from its metrics, whole or not at all; raises `TrainingError`."""
    rows = read_metrics(folder)
    trained = [row for row in rows if "sft" in row]
    held_out = [row for row in rows if "dev_sft" in row]
    if not trained:
        raise TrainingError(f"{folder / METRICS}: there is nothing to draw yet.")

    from matplotlib.figure import Figure  # with no window and no global state

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    steps = [row["step"] for row in trained]
    for name, label, color in (
        ("sft", "SFT (eq. 4)", "tab:blue"),
        ("cl", "CL (eq. 3)", "tab:orange"),
    ):
        _curve(axes[0], steps, [row[name] for row in trained], label, color)

    if held_out:
        at = [row["step"] for row in held_out]
        losses = [row["dev_sft"] for row in held_out]
        gains = [row["dev_ndcg"] for row in held_out]
        style = {"color": "tab:green", "markersize": 4}
        axes[0].plot(at, losses, "o-", label="SFT, held out", **style)
        axes[2].plot(at, gains, "o-", **style)
    lowest = min(min(row["sft"], row["cl"]) for row in trained)
    axes[0].set(title="loss, a group", yscale="log" if lowest > 0 else "linear")

    for name, label, color in (
        ("positive_weight", "W+", "tab:green"),
        ("negative_weight", "W-", "tab:red"),
    ):
        _curve(axes[1], steps, [row[name] for row in trained], label, color)

    axes[1].set(title="mean weight (figure 3)", ylim=(0, None))
    axes[2].set(title="nDCG@10, held out" if held_out else "nothing is held out", ylim=(0, 1.02))

    for axis in axes:
        axis.set(xlabel="step", xlim=(0, max(steps) + 1))
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()

    try:
        with atomic_path(folder / PLOT) as draft:
            figure.savefig(draft, dpi=120, format="png")
    except OSError as error:
        raise TrainingError(f"{folder / PLOT}: it cannot be written ({error.strerror}).") from None

    return folder / PLOT


def _curve(
    axis: object, steps: Sequence[float], values: Sequence[float], label: str, color: str
) -> None:
    """The values, pale, and a moving average of them."""
    width = max(1, min(_WINDOW, len(values) // 10))
    means: list[float] = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)  # type: ignore[attr-defined]
    axis.plot(steps, means, color=color, label=label)  # type: ignore[attr-defined]
