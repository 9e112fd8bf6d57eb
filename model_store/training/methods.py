"""The methods of `gmr train`, by the configuration: the unified loss, or a stage of ERank's.

Depends on configurations; what it runs is imported when it runs. Invariant: a configuration that
names no method is one of the unified loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.training.config import TrainConfig, TrainingError, read_settings, validated
from model_store.training.erank.config import ErankRun, GeneratedRun, GrpoRun


@dataclass(frozen=True, slots=True)
class Method:
    """The functions of a method: train to a folder, count what is learnt from, draw curves."""

    train: Callable[[Any], Path]
    check: Callable[[Any], int]
    draw: Callable[[Path], Path]
    counted: str
    """A word for what `check` counts."""


def load_run(name: str, overrides: Iterable[str] = ()) -> TrainConfig | ErankRun:
    """The configuration of a run of any method; raises `TrainingError` with a line for each
    problem."""
    path, values = read_settings(name, overrides)
    if "method" not in values:
        return validated(TrainConfig, path, values)

    match values["method"]:
        case "sft-generated":
            return validated(GeneratedRun, path, values)
        case "grpo":
            return validated(GrpoRun, path, values)
    raise TrainingError(
        f"{path}: method is sft-generated or grpo; a run with the unified loss names none."
    )


def method_of(run: TrainConfig | ErankRun) -> Method:
    """The method of a run; raises `TrainingError` where a package that it needs is missing."""
    if isinstance(run, TrainConfig):
        from model_store.training import plots, train

        return Method(train.train, train.check, plots.draw, "examples")

    try:
        from model_store.training.erank import plots as erank_plots
        from model_store.training.erank import run as erank
    except ImportError as error:
        raise TrainingError(
            f"The package {error.name} is not installed: pip install 'gmr-rerank[train-erank]'."
        ) from None
    return Method(erank.train, erank.check, erank_plots.draw, "pairs")
