"""The curves of either stage as a picture.

Depends on the journal's rows and matplotlib, not on a network. Invariant: the picture shows the
journal as it is, so it may be drawn during the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from model_store.files import atomic_path
from model_store.training.config import TrainingError
from model_store.training.journal import METRICS, read_metrics
from model_store.training.plots import PLOT, curve

_SFT: Sequence[tuple[str, Mapping[str, str]]] = (
    ("loss, a token of an answer", {"loss": "cross-entropy"}),
    ("tokens guessed", {"accuracy": "most likely token is right"}),
)
_GRPO: Sequence[tuple[str, Mapping[str, str]]] = (
    ("reward, an answer", {"reward": "mean", "reward_std": "deviation, a prompt"}),
    (
        "shares",
        {"constant": "prompts whose rewards are equal", "unscored": "answers without a number"},
    ),
    ("KL from stage 1, a token", {"kl": "KL"}),
)
_COLORS = ("tab:blue", "tab:orange")


def draw(folder: Path) -> Path:
    """Draw `folder/training.png` from its metrics, whole or not at all; raises `TrainingError`."""
    rows = [row for row in read_metrics(folder) if "loss" in row]
    if not rows:
        raise TrainingError(f"{folder / METRICS}: there is nothing to draw yet.")

    from matplotlib.figure import Figure  # with no window and no global state

    panels = _GRPO if "reward" in rows[0] else _SFT
    figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
    steps = [row["step"] for row in rows]
    axes = figure.subplots(1, len(panels))
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for color, (name, label) in zip(_COLORS, lines.items(), strict=False):
            curve(axis, steps, [row[name] for row in rows], label, color)
        axis.set(title=title, xlabel="step", xlim=(0, max(steps) + 1))
        axis.grid(alpha=0.3)
        axis.legend()

    try:
        with atomic_path(folder / PLOT) as draft:
            figure.savefig(draft, dpi=120, format="png")
    except OSError as error:
        raise TrainingError(f"{folder / PLOT}: it cannot be written ({error.strerror}).") from None
    return folder / PLOT
