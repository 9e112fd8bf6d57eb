"""The seam of a stage: all that a run needs of the method that it runs.

Depends on nothing of either method. Invariant: a stage that exists was checked against its data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from peft import LoraConfig as PeftSettings

from model_store.training.progress import ProgressLog


class Stage(Protocol):
    """A method with its data."""

    @property
    def pairs(self) -> int:
        """Pairs that are learnt from."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""

    @property
    def facts(self) -> dict[str, Any]:
        """The data, beside the rows: a run is resumed only where these are the same."""

    @property
    def shown(self) -> str:
        """The value of a journal's row that the progress shows."""

    def trainer(self, network: Any, maps: PeftSettings, states: Path, progress: ProgressLog) -> Any:
        """TRL's trainer over the network; raises `TrainingError` and `DataError`."""

    def row(self, logs: Mapping[str, Any]) -> dict[str, float] | None:
        """A trainer's log as a row of the journal; None for a log that is of no step."""
