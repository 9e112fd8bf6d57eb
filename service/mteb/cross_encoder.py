"""A running service as a cross-encoder of mteb.

Depends on mteb's protocol, and on a client of the service. mteb calls it with all pairs of a task;
it asks the service query by query, a bounded number of queries at once, in an event loop of its own
thread, so that it also works where a loop is running, as in a notebook. Invariant: each pair has a
score of the model that the object was made for, or is a refused document, which is counted.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from tqdm.auto import tqdm

from model_store.evaluation.runs.scorer import ModelChanged, QueryFailed, Scorer, ScoringStopped
from model_store.evaluation.tasks.dataset import Item
from service.mteb.access import Access, Description
from service.mteb.description import model_meta
from service.mteb.instructions import Override, instruct
from service.mteb.pairs import Question, length, questions

LAST = -1e6
"""The score of a query's first refused document, below every raw score; each further one has less
by 1, so that refused documents keep the order of the first stage."""
MAX_CONCURRENCY = 256
_INTERRUPTIBLE_SECONDS = 0.2


class GmrService:
    """A reranker behind a service, for `mteb.evaluate`.

    `url` and `key` are those of the service, or RERANK_URL and RERANK_KEY; `model` is one of
    several models that it serves. `instruction` replaces the instructions of all tasks, or of some
    by their names. `name` is the model's name in mteb's results. `concurrency` is the number of
    queries that are asked for at once. With `refused="raise"` a document that the service refuses
    ends the evaluation; with "last" such documents rank last, with a warning, and are counted in
    `refused_documents`. A query that it refuses counts as all its documents.

    Scores are raw scores (logits), which do not saturate as probabilities do. Results are cached by
    the service, so that an evaluation that was interrupted costs little when it is run again.
    Raises `ValueError` for wrong arguments, and `ScoringStopped` where the service does not answer.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        key: str | None = None,
        instruction: Override = None,
        name: str | None = None,
        concurrency: int = 8,
        refused: Literal["last", "raise"] = "last",
    ) -> None:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency is a number from 1 to {MAX_CONCURRENCY}.")
        if refused not in ("last", "raise"):
            raise ValueError("refused is 'last' or 'raise'.")
        self._access = Access.of(url, key, model, concurrency)
        self._concurrency = concurrency
        self._instruction = instruction
        self._raises = refused == "raise"
        self.refused_documents = 0

        with start_blocking_portal() as portal:
            self._description = portal.call(self._describe)
        experiment = {"instruction": instruction} if instruction else {}
        self.mteb_model_meta = model_meta(
            self._description.info, self._description.digest, name=name, experiment=experiment
        )

    async def _describe(self) -> Description:
        async with self._access.open() as service:
            return await self._access.describe(service)

    def predict(
        self,
        inputs1: Any,
        inputs2: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        show_progress_bar: bool = True,
        **encode_kwargs: Any,
    ) -> npt.NDArray[np.float64]:
        """A raw score for each pair of queries (`inputs1`) and documents (`inputs2`), as mteb asks.

        Options for encoders, such as `batch_size`, have no effect. Raises `ScoringStopped`, and
        `RefusedDocument` where the object was made with `refused="raise"`.
        """
        takes_instruction = self._description.takes_instruction
        asked = questions(
            inputs1,
            inputs2,
            instruct(task_metadata, self._instruction, takes_instruction=takes_instruction),
        )
        run = _Run(asked, self._access, self._description, raises=self._raises)
        with (
            tqdm(
                total=length(inputs1),
                desc=f"Scoring {task_metadata.name}",
                unit="pairs",
                disable=not show_progress_bar,
            ) as bar,
            start_blocking_portal() as portal,
        ):
            scoring = portal.start_task_soon(run.score_all, self._concurrency, bar.update)
            # beside the libraries of mteb, Ctrl-C does not end a wait without a limit
            while not wait([scoring], timeout=_INTERRUPTIBLE_SECONDS).done:
                pass
            scoring.result()

        run.warn_of_refusals(f"{task_metadata.name} ({hf_subset}, {hf_split})")
        self.refused_documents += run.refused
        return run.scores()


class RefusedDocument(Exception):
    """A document that the service refuses; the message is one sentence."""


class _Run:
    """The pairs of one call of mteb, while they are scored."""

    def __init__(
        self,
        asked: Iterator[Question],
        access: Access,
        description: Description,
        *,
        raises: bool,
    ) -> None:
        self._asked = asked
        self._access = access
        self._digest = description.digest
        self._raises = raises
        self._turn = asyncio.Lock()
        self._parts: dict[int, list[float]] = {}
        self._first_refusal = ""
        self.refused = 0

    async def score_all(self, concurrency: int, advance: Callable[[int], object]) -> None:
        """Score question after question, some at once."""
        async with self._access.open() as service:
            described = await self._access.describe(service)
            self._expect_same_model(described.digest)
            scorer = self._access.scorer(service, described)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(concurrency):
                        tasks.create_task(self._work(scorer, advance))
            except* Exception as failures:
                raise failures.exceptions[0] from None

    async def _work(self, scorer: Scorer, advance: Callable[[int], object]) -> None:
        while True:
            async with self._turn:
                question = await to_thread.run_sync(next, self._asked, None)
            if question is None:
                return
            self._parts[question.first] = await self._scores_of(question, scorer)
            advance(len(question.documents))

    async def _scores_of(self, question: Question, scorer: Scorer) -> list[float]:
        """The scores of a question's documents, equal ones scored once; one that is refused may
        end the run."""
        contents = [(document.text, document.image) for document in question.documents]
        numbers = {content: number for number, content in enumerate(dict.fromkeys(contents))}
        first_of_each = [Item("", text, image) for text, image in numbers]
        try:
            scored = await scorer.score(question.instruction, question.query, first_of_each)
        except QueryFailed as failure:
            if failure.may_pass:
                raise ScoringStopped(str(failure)) from None
            return [self._refused(question, place, str(failure)) for place in range(len(contents))]

        self._expect_same_model(scored.model_digest)
        scores: list[float] = []
        for place, content in enumerate(contents):
            number = numbers[content]
            score = scored.scores[number]
            if score is None:
                reason = scored.refusals.get(number, "no score.")
                score = self._refused(question, place, reason)
            scores.append(score)
        return scores

    def _refused(self, question: Question, place: int, reason: str) -> float:
        """The score of a refused document. Raises `RefusedDocument` where the run ends with it."""
        document = question.documents[place]
        sentence = f"query {question.query.id!r}, document {document.id!r}: {reason}"
        if self._raises:
            raise RefusedDocument(sentence)
        self._first_refusal = self._first_refusal or sentence
        self.refused += 1
        return LAST - question.rank - place

    def _expect_same_model(self, digest: str) -> None:
        if digest != self._digest:
            raise ModelChanged(
                f"The service has another model now ({digest}): make a new GmrService."
            )

    def warn_of_refusals(self, task: str) -> None:
        """Warn of refused documents. Raises `ScoringStopped` where no document was scored."""
        if not self.refused:
            return
        pairs = sum(map(len, self._parts.values()))
        if self.refused == pairs:
            raise ScoringStopped(f"{task}: every document was refused. {self._first_refusal}")
        warnings.warn(
            f"{task}: {self.refused:,} of {pairs:,} documents were refused and rank last; the first"
            f" is of {self._first_refusal}",
            stacklevel=3,
        )

    def scores(self) -> npt.NDArray[np.float64]:
        """All scores, in the order of the pairs."""
        ordered = [self._parts[first] for first in sorted(self._parts)]
        return np.concatenate([*map(np.asarray, ordered)]) if ordered else np.empty(0)
