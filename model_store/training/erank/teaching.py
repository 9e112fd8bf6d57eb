"""Answers to teach, from a teacher's generations; the teacher may be any model of ERank's family.

Depends on checkpoints and rows, not on a trainer. Invariant: as in `consensus`; every answer that
is written belongs to a pair of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from model_store.checkpoint import resolve
from model_store.errors import DataError
from model_store.families.family import Family
from model_store.families.readout import GeneratedScore
from model_store.manifest import CheckpointUnusable
from model_store.output_files import check_outputs, output_file
from model_store.training.config import TrainingError
from model_store.training.data.rows import read_examples
from model_store.training.data.validation import refuse_bad_rows
from model_store.training.erank.answers import matched, pair_key, write_answers
from model_store.training.erank.consensus import (
    Chosen,
    Generations,
    choose,
    generations_line,
    read_generations,
)
from model_store.training.erank.pairs import PairRenderer, open_checkpoint
from model_store.training.erank.writing import AnswerWriter
from model_store.training.reranker import load_network


@dataclass(frozen=True, slots=True)
class Teaching:
    """A teacher, and how it is asked."""

    model: str
    count: int
    temperature: float
    max_tokens: int
    seed: int
    device: str = "cpu"


def generate(
    rows: Path, out: Path, asked: Teaching, progress: Callable[[int], None] = lambda pairs: None
) -> None:
    """Write the teacher's generations for every pair of the rows; raises `DataError`, before the
    teacher is loaded where a row is wrong, or one that the teacher cannot read."""
    check_outputs(out, inputs=(rows,))
    refuse_bad_rows(rows)
    try:
        checkpoint = open_checkpoint(asked.model)
        renderer = PairRenderer(checkpoint, None)
        renderer.refuse_unreadable(rows)
        dtype = torch.float32 if asked.device == "cpu" else torch.bfloat16
        network = load_network(checkpoint, dtype).to(asked.device).eval()
    except (TrainingError, CheckpointUnusable) as error:
        raise DataError(str(error)) from None

    writer = AnswerWriter(
        network,
        renderer.tokenizer,
        renderer.readout,
        asked.max_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
    )
    with output_file(out) as write:
        for example in read_examples(rows):
            documents = example.documents
            prompts = renderer.prompts(example, documents)
            repeated = [prompt for prompt in prompts for _ in range(asked.count)]
            texts = [answer.text for answer in writer.write(repeated)]
            for number, side in enumerate(documents):
                own = texts[number * asked.count : (number + 1) * asked.count]
                key = pair_key(example.query, side)
                write(generations_line(Generations(example.id, number, own, key)))
            progress(len(documents))


def answering_family(model: str) -> tuple[Family, GeneratedScore]:
    """The family of a model that is to be taught, and its read-out; raises `DataError`."""
    try:
        family = resolve(model, weights=False).family
    except CheckpointUnusable as error:
        raise DataError(str(error)) from None
    readout = family.readout
    if not isinstance(readout, GeneratedScore):
        raise DataError(f"{model} reads its score from {readout.name}, and writes no answers.")
    return family, readout


def take(rows: Path, generations: Path, out: Path, model: str, max_tokens: int) -> Chosen:
    """Write the answer of each pair that has a usable generation; raises `DataError`, also where an
    answer would fit no pair of the rows."""
    check_outputs(out, inputs=(rows, generations))
    family, readout = answering_family(model)

    def count_tokens(text: str) -> int:
        return len(family.tokenizer.encode([text])[0])

    chosen = Chosen()
    pairs = read_generations(generations)
    answers = list(choose(pairs, readout, count_tokens, max_tokens, chosen))
    for _ in matched(rows, answers):
        pass
    if not answers:
        raise DataError(f"{generations}: no generation has a thought and a number.")
    write_answers(out, answers)
    return chosen
