"""The paper's instructions for evaluation, by task and data set (table 13).

Does not depend on benchmarks. Tasks are written as the benchmark's cells: T-IT is a text query for
documents of image and text. Words that the print joined at line ends are separated here. Two rows
stand at the tasks of their data sets: the news-related image at T-I, not I-I, and OVEN's
image-description pair at IT-IT. Invariant: there is one instruction for each row of table 14.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction of table 13, and the task and data set that it is for."""

    task: str
    dataset: str
    instruction: str

    @property
    def name(self) -> str:
        """The name by which commands take it, such as `T-T/ArguAna`."""
        return f"{self.task}/{self.dataset}"


def _table_13() -> tuple[Instruction, ...]:
    text = files(__package__).joinpath("tables/instructions.json").read_text(encoding="utf-8")
    return tuple(Instruction(**row) for row in json.loads(text))


TABLE_13 = _table_13()
"""Table 13, in the paper's order and spelling; instructions.json holds it."""
EVALUATION = {(row.task, row.dataset): row.instruction for row in TABLE_13}
"""Table 13 by (task, data set)."""


class NoInstruction(Exception):
    """A name of no instruction; the message is one sentence with similar names."""


def named_instruction(name: str) -> Instruction:
    """The instruction of table 13 with a name.

    Case does not matter, and the data set alone is enough where table 13 has it for one task.
    Raises `NoInstruction`.
    """
    wanted = name.strip().lower()
    for row in TABLE_13:
        if row.name.lower() == wanted:
            return row

    of_dataset = [row for row in TABLE_13 if row.dataset.lower() == wanted]
    if len(of_dataset) == 1:
        return of_dataset[0]
    if of_dataset:
        names = " and ".join(row.name for row in of_dataset)
        raise NoInstruction(f"There are several instructions for {of_dataset[0].dataset}: {names}.")

    known = {row.name.lower(): row.name for row in TABLE_13}
    known |= {row.dataset.lower(): row.name for row in TABLE_13}
    similar = difflib.get_close_matches(wanted, known, 1)
    suggestion = f"did you mean {known[similar[0]]}?" if similar else "`gmr instructions` has them."
    raise NoInstruction(f"There is no instruction {name[:64]!r}: {suggestion}")
