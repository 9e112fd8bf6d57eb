"""Mines negatives for every example of a file, part by part.

Knows examples, candidates and parts, no retriever by name. Several processes may do parts of one
run, each its own shard, or all the same ones. Invariant: the file that is written is the same, byte
for byte, however the work was shared and interrupted: a part holds the same examples in every run,
and is searched as one batch.
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

from model_store.training.data.corpus import Corpus, parse_document
from model_store.training.data.image_files import ImageMode, check_nameable
from model_store.training.data.resumable import Note, Parts, file_identity
from model_store.training.data.row_files import check_outputs, example_line, write_json
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import DataError, Example, Side, read_examples, read_lines
from model_store.training.negatives.choosing import Chosen, Rules, ceiling, choose
from model_store.training.negatives.retrievers import Found, Retriever, query_of

EXAMPLES_A_PART = 256
_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Run:
    """What is mined, from what, by which rules, and where the result goes."""

    source: Path
    corpus: Path
    target: Path
    rules: Rules
    keep: bool = False  # what the source has as negatives stays, before those that are found
    images: ImageMode = "reference"  # of images outside the target's folder

    @property
    def parts_folder(self) -> Path:
        return self.target.with_name(self.target.name + ".parts")

    @property
    def report(self) -> Path:
        return self.target.with_name(self.target.name + ".report.json")


def parts_in(examples: int) -> int:
    """How many parts so many examples are."""
    return -(-examples // EXAMPLES_A_PART)


def check_before(run: Run) -> None:
    """What can be known to be wrong before hours of embedding; raises `DataError`.

    Whether the target can be written, every row of the source, and whether rows at the target can
    name the images of the source and of the corpus's beginning.
    """
    check_outputs(run.target, run.report, inputs=(run.source, run.corpus))
    for example in read_examples(run.source):
        for side in (
            example.query,
            *example.positives,
            *(negative.side for negative in example.negatives),
        ):
            _check_side(run, side)
    for number, row in islice(read_lines(run.corpus), _LOOKED_AT):
        _check_side(run, parse_document(row, run.corpus, number).side)


def _check_side(run: Run, side: Side) -> None:
    if side.image is not None:
        check_nameable(run.target.parent, side.image, run.images)


class Miner:
    """One process's hold of a run."""

    def __init__(self, run: Run, corpus: Corpus, retriever: Retriever) -> None:
        """Raises `DataError` where there is nothing to mine for."""
        self._run, self._corpus, self._retriever = run, corpus, retriever
        self._examples = Examples(run.source)
        if not len(self._examples):
            raise DataError(f"{run.source}: there are no examples.")
        described: dict[str, Any] = {
            "source": file_identity(run.source),
            "corpus": file_identity(run.corpus),
            "rules": asdict(run.rules),
        }
        described |= {"keep": run.keep, "images": run.images}
        self._described = described | {
            "retriever": retriever.described,
            "examples_a_part": EXAMPLES_A_PART,
        }

    @cached_property
    def _parts(self) -> Parts:
        """Raises `DataError` where the target's parts are those of another run."""
        return Parts(self._run.parts_folder, self._described)

    @property
    def parts(self) -> int:
        return parts_in(len(self._examples))

    @property
    def examples(self) -> int:
        return len(self._examples)

    def shard(self, number: int, of: int) -> range:
        """The parts of shard `number`, from 0, of `of`."""
        return range(self.parts * number // of, self.parts * (number + 1) // of)

    def finished(self) -> dict[str, Any] | None:
        """The report of this very run, where it was finished before; raises `DataError` for one
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
        """Do those of `parts` that nobody has done; `progress` is called with the examples of each
        part."""
        for part in parts:
            first = part * EXAMPLES_A_PART
            places = range(first, min(first + EXAMPLES_A_PART, len(self._examples)))
            if self._parts.note(part) is None:
                self._mine_part(part, [self._examples[place] for place in places])
            progress(len(places))

    def finish(self) -> dict[str, Any]:
        """Put the parts together, write the report last, and take the parts away; raises
        `DataError` where one is not done."""
        total: Note = {}
        for note in self._parts.notes(self.parts):
            _add(total, note)
        self._parts.join(self.parts, self._run.target)
        report = {"run": self._described, **total}
        write_json(self._run.report, report)
        self._parts.remove()
        return report

    def _mine_part(self, part: int, examples: list[Example]) -> None:
        found = self._retriever.search(
            [query_of(example) for example in examples], self._run.rules.top
        )
        note: Note = _empty(self._run.rules, self._retriever.bin_width)

        def lines() -> Iterator[bytes]:
            for example, candidates in zip(examples, found, strict=True):
                yield example_line(
                    self._mined(example, candidates, note),
                    self._run.target.parent,
                    self._run.images,
                )

        self._parts.write(part, lines(), note)

    def _mined(self, example: Example, found: Found, note: Note) -> Example:
        rules = self._run.rules
        query = query_of(example)
        scores = self._retriever.score(query, example.positives) if rules.guarded else []
        limit = ceiling(rules, scores)

        def score(places: Sequence[int]) -> list[float | None]:
            return self._retriever.score_documents(query, places)

        chosen = choose(
            example, self._corpus, found, limit, rules, kept=self._run.keep, scores=score
        )
        kept = example.negatives if self._run.keep else ()
        _count(note, chosen, rules, scores, limit is None and rules.guarded)
        return replace(example, negatives=(*kept, *chosen.negatives))


def _empty(rules: Rules, bin_width: float) -> Note:
    counts = (
        "examples",
        "hard",
        "random",
        "fewer_hard",
        "fewer_random",
        "without_negatives",
        "dropped_as_relevant",
        "dropped_as_copies",
    )
    guard = ("dropped_as_too_relevant", "random_dropped_as_too_relevant", "not_guarded")
    note: Note = dict.fromkeys((*counts, *guard), 0)
    return note | {
        "wanted": rules.hard,
        "bin_width": bin_width,
        "hard_scores": {},
        "positive_scores": {},
    }


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
        bins = Counter(
            f"{floor(score / note['bin_width']) * note['bin_width']:.2f}"
            for score in scores
            if score is not None
        )
        note[name] = dict(Counter(note[name]) + bins)


def _add(total: Note, note: Note) -> None:
    """Sum the counts of two notes; what describes the run is the same in both."""
    for name, value in note.items():
        if name in ("wanted", "bin_width"):
            total[name] = value
        elif isinstance(value, dict):
            total[name] = dict(Counter(total.get(name, {})) + Counter(value))
        else:
            total[name] = total.get(name, 0) + value
