"""Rows as judged pairs: each row's positives are relevant to its query, its negatives are not.

Depends on rows and networks, not on maps of scores. Invariant: everything that can be refused is
refused before a network is loaded, and every pair is scored as the service scores it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from model_store.calibration.description import MAX_INSTRUCTION_CHARS
from model_store.calibration.instruction_map import refuse_few
from model_store.calibration.judged_pairs import MAX_PAIRS, Judged
from model_store.checkpoint import Checkpoint
from model_store.errors import DataError
from model_store.evaluation.results import MAX_QUERIES
from model_store.manifest import CheckpointUnusable
from model_store.training.benchmark import open_scorer
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import Example
from model_store.training.data.validation import SHOWN, check
from model_store.training.groups import Draw, Grouper
from model_store.training.rows_benchmark import rows_digest


class JudgedRows:
    """The rows of a file whose instruction is one of `instructions`, or all of them.

    A row without an instruction has the model's default one.
    """

    def __init__(
        self, path: Path, checkpoint: Checkpoint, instructions: Collection[str] = ()
    ) -> None:
        """Raises `DataError`, with a sentence for each of the first problems."""
        self._default = checkpoint.manifest.default_instruction
        self.grouper = Grouper(checkpoint.family, self._default, Draw(1, 0.0, 0))
        self.examples = Examples(path)
        if not 1 <= len(self.examples) <= MAX_QUERIES:
            raise DataError(
                f"{path}: there are {len(self.examples)} rows; a calibration takes from 1 to"
                f" {MAX_QUERIES}."
            )
        problems = list(check(path).problems)
        if problems:
            raise DataError("\n".join(problems))

        self._chosen: list[int] = []
        self._choose(path, checkpoint, instructions)
        self.digest = rows_digest(self.examples)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        return self.examples[self._chosen[index]]

    def instruction_of(self, example: Example) -> str:
        """The instruction that a row is scored with."""
        return example.instruction or self._default

    def _choose(self, path: Path, checkpoint: Checkpoint, instructions: Collection[str]) -> None:
        """Choose the rows of the instructions; raises `DataError` for those that cannot be
        used."""
        queries: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        problems: list[str] = []
        pairs = 0
        for number in range(len(self.examples)):
            example = self.examples[number]
            own = self.instruction_of(example)
            if instructions and own not in instructions:
                continue

            problem = self._problem(example, checkpoint)
            if problem is not None:
                problems.append(problem)
            if len(problems) == SHOWN:
                break
            self._chosen.append(number)
            queries[own][0] += 1
            queries[own][1] += bool(example.negatives)
            pairs += len(example.positives) + len(example.negatives)
        if problems:
            raise DataError("\n".join(problems))
        if pairs > MAX_PAIRS:
            raise DataError(f"{path}: there are {pairs} pairs, and at most {MAX_PAIRS} are taken.")
        refuse_few(str(path), queries, instructions)

    def _problem(self, example: Example, checkpoint: Checkpoint) -> str | None:
        """A sentence on a row that cannot be scored, or whose instruction requests cannot have."""
        if example.instruction and not checkpoint.family.takes_instruction:
            return (
                f"{example.location}: the row has an instruction, and {checkpoint.name} has no"
                " place for one."
            )
        if len(self.instruction_of(example)) > MAX_INSTRUCTION_CHARS:
            return (
                f"{example.location}: the instruction has more than {MAX_INSTRUCTION_CHARS}"
                " characters."
            )
        return self.grouper.unreadable(example)


def score_rows(
    checkpoint: Checkpoint,
    rows: JudgedRows,
    *,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, list[Judged]]:
    """The judged scores of each row, by instruction, in fp32 on a CPU and bf16 on a GPU.

    `progress` is called with the number of rows done since the last call. Raises
    `CheckpointUnusable` and `DataError`.
    """
    scorer = open_scorer(checkpoint, rows.grouper, device)
    judged: dict[str, list[Judged]] = {}
    for number in range(len(rows)):
        example = rows[number]
        scores = scorer.score(example)
        if not all(map(math.isfinite, scores)):
            raise CheckpointUnusable(
                f"{checkpoint.name}: a document of {example.location} has no finite score."
            )

        relevant = [True] * len(example.positives) + [False] * len(example.negatives)
        judged.setdefault(rows.instruction_of(example), []).append((scores, relevant))
        progress(1)
    return judged
