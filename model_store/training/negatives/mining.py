"""Mining: negatives for every example of a file, part by part.

Depends on examples, candidates and parts, not on a retriever by name. Several processes may do
parts of one run, each a shard of its own, or all the same ones. Invariant: the written file is the
same, byte for byte, however the work was shared and interrupted, since a part has the same examples
in every run and is searched as one batch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.output_files import check_outputs, write_json
from model_store.parts import Note, Parts, file_identity
from model_store.retrieval.found import Found
from model_store.training.data.corpus import Corpus, parse_document
from model_store.training.data.image_files import ImageMode, check_nameable
from model_store.training.data.row_files import example_line
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import Example, Side, read_examples, read_lines
from model_store.training.negatives.choosing import Chosen, Rules, ceiling, choose
from model_store.training.negatives.retrievers import Retriever, query_of

EXAMPLES_A_PART = 256
_COUNTS = (
    "examples",
    "hard",
    "random",
    "fewer_hard",
    "fewer_random",
    "without_negatives",
    "dropped_as_relevant",
    "dropped_as_copies",
    "dropped_as_too_relevant",
    "random_dropped_as_too_relevant",
    "not_guarded",
)
_CHECKED_DOCUMENTS = 1_000


@dataclass(frozen=True, slots=True)
class Run:
    """The files of a run and its rules.

    `keep` keeps the source's own negatives, before the new ones; `images` is for images outside the
    target's folder.
    """

    source: Path
    corpus: Path
    target: Path
    rules: Rules
    keep: bool = False
    images: ImageMode = "reference"
    examples_a_part: int = EXAMPLES_A_PART

    @property
    def parts_folder(self) -> Path:
        return self.target.with_name(self.target.name + ".parts")

    @property
    def report(self) -> Path:
        return self.target.with_name(self.target.name + ".report.json")

    def parts_of(self, examples: int) -> int:
        """Number of parts of so many examples."""
        return -(-examples // self.examples_a_part)


def check_before(run: Run) -> None:
    """Check all that can be checked before hours of embedding; raises `DataError`.

    The target must be writable, every row of the source readable and without a teacher's scores,
    and rows at the target able to name the images of the source and of the first documents of the
    corpus.
    """
    check_outputs(run.target, run.report, inputs=(run.source, run.corpus))
    for example in read_examples(run.source):
        if example.teacher_scores is not None:
            raise DataError(
                f"{example.location}: the row has teacher_scores, and a negative that is mined has"
                " none: mine first, then score."
            )
        for side in (example.query, *example.documents):
            _check_side(run, side)

    for number, row in islice(read_lines(run.corpus), _CHECKED_DOCUMENTS):
        _check_side(run, parse_document(row, run.corpus, number).side)


def _check_side(run: Run, side: Side) -> None:
    if side.image is not None:
        check_nameable(run.target.parent, side.image, run.images)


class Miner:
    """Mines parts of a run in one process."""

    def __init__(self, run: Run, corpus: Corpus, retriever: Retriever) -> None:
        """Raises `DataError` for a source without examples."""
        self._run, self._corpus, self._retriever = run, corpus, retriever
        self._examples = Examples(run.source)
        if not len(self._examples):
            raise DataError(f"{run.source}: there are no examples.")

        rules = asdict(run.rules)
        if not run.rules.bands:
            del rules["bands"]  # as files that were mined before there were bands describe them
        self._described: dict[str, Any] = {
            "source": file_identity(run.source),
            "corpus": file_identity(run.corpus),
            "rules": rules,
            "keep": run.keep,
            "images": run.images,
            "retriever": retriever.described,
            "examples_a_part": run.examples_a_part,
        }

    @cached_property
    def _parts(self) -> Parts:
        """The parts at the target; raises `DataError` where they are another run's."""
        return Parts(self._run.parts_folder, self._described)

    @property
    def parts(self) -> int:
        return self._run.parts_of(len(self._examples))

    @property
    def examples(self) -> int:
        return len(self._examples)

    def shard(self, number: int, of: int) -> range:
        """Parts of shard `number`, from 0, of `of` shards."""
        return range(self.parts * number // of, self.parts * (number + 1) // of)

    def finished(self) -> dict[str, Any] | None:
        """The report of the same run, if it was finished before; raises `DataError` for a report
        that cannot be read."""
        try:
            report: dict[str, Any] = json.loads(self._run.report.read_text(encoding="utf-8"))
            same = report["run"] == json.loads(json.dumps(self._described))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(
                f"{self._run.report}: it cannot be read; remove it to mine again."
            ) from None
        return report if same and self._run.target.exists() else None

    def mine(self, parts: range, progress: Callable[[int], None] = lambda examples: None) -> None:
        """Do those of `parts` that are not done; `progress` is called with the number of examples
        of each part."""
        for part in parts:
            first = part * self._run.examples_a_part
            numbers = range(first, min(first + self._run.examples_a_part, len(self._examples)))
            if self._parts.note(part) is None:
                self._mine_part(part, [self._examples[number] for number in numbers])
            progress(len(numbers))

    def finish(self) -> dict[str, Any]:
        """Join the parts, write the report last, and remove the parts; raises `DataError` where
        one is not done."""
        total: Note = {}
        for note in self._parts.notes(self.parts):
            _add(total, note)
        self._parts.join(self.parts, self._run.target)
        report = {"run": self._described, **total}
        write_json(self._run.report, report)
        self._parts.remove()
        return report

    def _mine_part(self, part: int, examples: list[Example]) -> None:
        queries = [query_of(example) for example in examples]
        found = self._retriever.search(queries, self._run.rules.top)
        note: Note = _empty(self._run.rules, self._retriever.bin_width)
        folder, images = self._run.target.parent, self._run.images

        def lines() -> Iterator[bytes]:
            for example, candidates in zip(examples, found, strict=True):
                yield example_line(self._mined(example, candidates, note), folder, images)

        self._parts.write(part, lines(), note)

    def _mined(self, example: Example, found: Found, note: Note) -> Example:
        rules = self._run.rules
        query = query_of(example)
        scores = self._retriever.score(query, example.positives) if rules.guarded else []
        limit = ceiling(rules, scores)

        def score(numbers: Sequence[int]) -> list[float | None]:
            return self._retriever.score_documents(query, numbers)

        chosen = choose(
            example, self._corpus, found, limit, rules, kept=self._run.keep, scores=score
        )
        kept = example.negatives if self._run.keep else ()
        _count(note, chosen, rules, scores, limit is None and rules.guarded)
        return replace(example, negatives=(*kept, *chosen.negatives))


def _empty(rules: Rules, bin_width: float) -> Note:
    note: Note = dict.fromkeys(_COUNTS, 0)
    note |= {"wanted": rules.hard, "bin_width": bin_width}
    note |= {"hard_scores": {}, "positive_scores": {}}
    return note


def _count(
    note: Note, chosen: Chosen, rules: Rules, positives: list[float | None], unguarded: bool
) -> None:
    hard = len(chosen.scores)
    random = len(chosen.negatives) - hard
    note["examples"] += 1
    note["hard"] += hard
    note["random"] += random
    note["fewer_hard"] += hard < rules.hard
    note["fewer_random"] += random < rules.random
    note["without_negatives"] += not chosen.negatives
    note["dropped_as_relevant"] += chosen.relevant
    note["dropped_as_copies"] += chosen.copies
    note["dropped_as_too_relevant"] += chosen.too_relevant
    note["random_dropped_as_too_relevant"] += chosen.random_too_relevant
    note["not_guarded"] += unguarded

    for name, scores in (("hard_scores", chosen.scores), ("positive_scores", positives)):
        bins: Counter[str] = Counter()
        for score in scores:
            if score is not None:
                bins[f"{floor(score / note['bin_width']) * note['bin_width']:.2f}"] += 1
        note[name] = dict(Counter(note[name]) + bins)


def _add(total: Note, note: Note) -> None:
    """Add the counts of `note` to `total`; fields that describe the run are equal in both."""
    for name, value in note.items():
        if name in ("wanted", "bin_width"):
            total[name] = value
        elif isinstance(value, dict):
            total[name] = dict(Counter(total.get(name, {})) + Counter(value))
        else:
            total[name] = total.get(name, 0) + value
