"""The paper's instructions, by task and data set: table 10 for training, table 13 for evaluation.

Does not depend on rows. Tasks are written as the benchmark's cells: T-IT is a text query for
documents of image and text. Words that the print joined at line ends are separated here. Two rows
of table 13 stand at the tasks of their data sets: the news-related image at T-I, not I-I, and
OVEN's image-description pair at IT-IT. Invariant: there is one instruction for each pair of table
7, and one for each of table 14.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

MODALITIES: dict[str, tuple[str, str]] = {
    "T-T": ("text", "text"),
    "I-I": ("image", "image"),
    "T-I": ("text", "image"),
    "T-VD": ("text", "image"),
    "I-T": ("image", "text"),
    "T-IT": ("text", "image,text"),
    "IT-T": ("image,text", "text"),
    "IT-I": ("image,text", "image"),
    "IT-IT": ("image,text", "image,text"),
}
"""The modalities of a task's query and of its relevant documents, in M-BEIR's words."""


def _by_part(by_task: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """Instructions by (task, data set), such as ("T-IT", "WebQA")."""
    parts: dict[tuple[str, str], str] = {}
    for task, by_dataset in by_task.items():
        for dataset, instruction in by_dataset.items():
            parts[task, dataset] = instruction
    return parts


TRAINING = _by_part(
    {
        "T-T": {
            "WebQA": (
                "Retrieve passages from Wikipedia that provide answers to the following question."
            ),
            "MS MARCO": "Given a question, retrieve relevant passages that answer the question.",
        },
        "I-I": {
            "Nights": "Find a day-to-day image that looks similar to the provided image.",
            "ImageNet-1K": "Retrieve images of the same type as the one in the question.",
        },
        "T-I": {
            "Fashion200k": (
                "Based on the following fashion description, retrieve the best matching image."
            ),
            "VisualNews": "Identify the news-related image in line with the described event.",
        },
        "T-VD": {
            "ViDoRe": "Find a screenshot that relevant to the user's question.",
        },
        "I-T": {
            "VisualNews": "Find a caption for the news in the given photo.",
            "Fashion200k": "Find a product description for the fashion item in the image.",
            "MSCOCO": "Find an image caption describing the following everyday image.",
        },
        "T-IT": {
            "WebQA": "Find a Wikipedia image that answers this question.",
            "EDIS": "Find a news image that matches the provided caption.",
        },
        "IT-T": {
            "OVEN": (
                "Retrieve a Wikipedia paragraph that provides an answer to the given query "
                "about the image."
            ),
            # As printed, "decription": the models were trained on this.
            "LLaVA": (
                "Provide a specific decription of the image along with the following question."
            ),
            "ReMuQ": (
                "Retrieve a fact-based paragraph that provides an answer to the given query "
                "about the image."
            ),
        },
        "IT-I": {
            "FashionIQ": (
                "Find a fashion image that aligns with the reference image and style note."
            ),
            "CIRR": (
                "Retrieve a day-to-day image that aligns with the modification instructions of "
                "the provided image."
            ),
        },
        "IT-IT": {
            "OVEN": (
                "Retrieve a Wikipedia image-description pair that provides evidence for the "
                "question of this image."
            ),
            "E-VQA": (
                "Determine the Wikipedia image-snippet pair that matches my question about this "
                "image."
            ),
        },
    }
)
"""Table 10."""


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
    text = files(__package__).joinpath("instructions.json").read_text(encoding="utf-8")
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
