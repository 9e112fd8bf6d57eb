"""Pairs of rows as token ids, and generated answers behind them.

Depends on rows, a checkpoint's family and its tokenizer, not on a network. Invariant: a prompt's
ids are those that the service makes of the same pair, and an answer's end with the control token
that ends a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from model_store.checkpoint import Checkpoint, resolve
from model_store.errors import DataError
from model_store.families.generated_answer import stop_ids
from model_store.families.readout import GeneratedScore
from model_store.folders.plain import refuse_quantised
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import DecoderArchitecture
from model_store.training.config import TrainingError
from model_store.training.data.rows import Example, Side, read_examples
from model_store.training.data.validation import SHOWN
from model_store.training.erank.answers import matched, read_answers
from model_store.training.erank.config import AnswerData, QueryData
from model_store.training.groups import Draw, Grouper

MAX_PAIRS = 20_000_000


@dataclass(frozen=True, slots=True)
class TaughtPair:
    """A prompt and the answer to it, as token ids one after the other."""

    ids: npt.NDArray[np.int32]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class QueryPair:
    """One of a query's documents; `name` is the row's id and the document's number."""

    name: str
    prompt: list[int]
    positive: bool


class PairRenderer:
    """Renders pairs of one checkpoint whose model writes its score."""

    def __init__(self, checkpoint: Checkpoint, max_tokens: int | None) -> None:
        """`max_tokens` bounds a prompt; raises `TrainingError`."""
        limit = checkpoint.manifest.max_tokens
        if max_tokens is not None and max_tokens > limit:
            raise TrainingError(
                f"data.max_tokens is {max_tokens}, and {checkpoint.name} reads {limit}."
            )
        try:
            family = checkpoint.open_family(max_tokens=max_tokens)
            readout = family.readout
            ends = stop_ids(family.tokenizer)
            architecture = checkpoint.decoder
        except CheckpointUnusable as error:
            raise TrainingError(str(error)) from None
        if not isinstance(readout, GeneratedScore):
            raise TrainingError(
                f"{checkpoint.name} reads its score from {readout.name}, and this method is for"
                " models that write it: leave method out of the configuration."
            )
        if not ends:
            raise TrainingError(f"{checkpoint.name}: its tokenizer has no token that ends a turn.")
        self.folder, self.digest = checkpoint.folder, checkpoint.digest
        self.readout: GeneratedScore = readout
        self.tokenizer = family.tokenizer
        self.architecture: DecoderArchitecture = architecture
        self.end = ends[0]
        self._grouper = Grouper(family, checkpoint.manifest.default_instruction, Draw(1, 0.0, 0))

    def prompts(self, example: Example, documents: Sequence[Side]) -> list[list[int]]:
        """The prompt of each document; raises `DataError`, which names file and line."""
        group = self._grouper.group_of(example, documents)
        return [[*prompt.prefix.ids, *prompt.suffix.ids] for prompt in group.prompts]

    def refuse_unreadable(self, rows: Path) -> None:
        """Raise `DataError` with a line for each of the first rows whose pairs cannot be read."""
        problems = (self._grouper.unreadable(example) for example in read_examples(rows))
        found = list(islice(filter(None, problems), SHOWN))
        if found:
            raise DataError("\n".join(found))

    def answer(self, text: str) -> list[int]:
        """The ids of an answer in the required form, and the end of the turn behind them.

        `<think>` and `</think>` are tokens of their own where the vocabulary has them, as the
        model's own tokenizer reads them.
        """
        controls = self.tokenizer.controls
        ids: list[int] = []
        for piece in _split(text, [tag for tag in ("<think>", "</think>") if tag in controls]):
            ids += [controls[piece]] if piece in controls else self.tokenizer.encode([piece])[0]
        return [*ids, self.end]


def _split(text: str, tags: Sequence[str]) -> list[str]:
    """A text cut before and after each tag, without empty pieces."""
    pieces = [text]
    for tag in tags:
        cut: list[str] = []
        for piece in pieces:
            before, found, after = piece.partition(tag)
            cut += [before, found, after]
        pieces = [piece for piece in cut if piece]
    return pieces


def open_checkpoint(
    model: str, revision: str | None = None, family: str | None = None
) -> Checkpoint:
    """The checkpoint to train on; raises `TrainingError`."""
    try:
        checkpoint = resolve(model, revision=revision, family=family)
        refuse_quantised(
            checkpoint.name,
            checkpoint.folder,
            "and cannot be trained: take the checkpoint that they were made from",
        )
    except CheckpointUnusable as error:
        raise TrainingError(str(error).replace("RERANK_MODEL_REVISION", "revision")) from None
    return checkpoint


def taught_pairs(renderer: PairRenderer, data: AnswerData) -> list[TaughtPair]:
    """Every answered pair, in the order of the rows; raises `DataError` with a line for each of
    the first problems."""
    pairs: list[TaughtPair] = []
    problems: list[str] = []
    for example, answers in matched(data.train, read_answers(data.answers, renderer.readout)):
        documents = example.documents
        try:
            prompts = renderer.prompts(example, [documents[each.document] for each in answers])
        except DataError as error:
            problems.append(str(error))
            continue
        for answer, prompt in zip(answers, prompts, strict=True):
            ids = renderer.answer(answer.text)
            if len(ids) > data.max_answer_tokens:
                problems.append(
                    f"{answer.location}: the answer has {len(ids)} tokens, and"
                    f" {data.max_answer_tokens} are allowed."
                )
            pairs.append(TaughtPair(np.asarray([*prompt, *ids], np.int32), len(prompt)))
        if len(problems) >= SHOWN:
            break
    if problems:
        raise DataError("\n".join(problems[:SHOWN]))
    if not pairs:
        raise DataError(f"{data.answers}: there are no answers.")
    if len(pairs) > MAX_PAIRS:
        raise DataError(f"{data.answers}: a run has at most {MAX_PAIRS:,} pairs.")
    return pairs


def query_groups(renderer: PairRenderer, data: QueryData, seed: int) -> list[list[QueryPair]]:
    """The documents of each row that a step asks about, `data.documents` of them.

    All positives are among them where one negative at least has room beside them, and negatives are
    drawn by the seed. Raises `DataError` with a line for each of the first problems.
    """
    groups: list[list[QueryPair]] = []
    problems: list[str] = []
    for example in read_examples(data.train):
        if len(groups) == MAX_PAIRS // data.documents:
            raise DataError(f"{example.location}: a run has at most {len(groups):,} such rows.")
        total = len(example.positives) + len(example.negatives)
        if total < data.documents or not example.negatives:
            problems.append(
                f"{example.location}: the row has {len(example.positives)} positives and"
                f" {len(example.negatives)} negatives, and data.documents is {data.documents}."
            )
        else:
            try:
                groups.append(_group(renderer, example, data.documents, seed))
            except DataError as error:
                problems.append(str(error))
        if len(problems) >= SHOWN:
            break
    if problems:
        raise DataError("\n".join(problems))
    if not groups:
        raise DataError(f"{data.train}: there are no rows.")
    return groups


def _group(renderer: PairRenderer, example: Example, size: int, seed: int) -> list[QueryPair]:
    generator = Random(f"{seed}/{example.id}")
    positives = min(len(example.positives), size - 1)
    numbers = sorted(generator.sample(range(len(example.positives)), positives))
    negatives = generator.sample(range(len(example.negatives)), size - positives)
    numbers += sorted(len(example.positives) + number for number in negatives)

    documents = example.documents
    prompts = renderer.prompts(example, [documents[number] for number in numbers])
    group: list[QueryPair] = []
    for number, prompt in zip(numbers, prompts, strict=True):
        positive = number < len(example.positives)
        group.append(QueryPair(f"{example.id}/{number}", prompt, positive))
    return group


def order_of(groups: Sequence[Sequence[QueryPair]], steps: int, seed: int) -> list[int]:
    """Numbers of pairs, those of all groups in a row, for so many steps of one query each.

    A query's pairs stay together; an epoch has the queries in an order of its own.
    """
    starts = [0, *accumulate(len(group) for group in groups)]
    numbers: list[int] = []
    for step in range(steps):
        epoch, place = divmod(step, len(groups))
        if place == 0:
            queries = list(range(len(groups)))
            Random(f"{seed}/order/{epoch}").shuffle(queries)
        query = queries[place]
        numbers += range(starts[query], starts[query + 1])
    return numbers
