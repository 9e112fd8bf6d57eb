"""M-BEIR's layout (UniIR): a file of queries, a candidate pool, and a table of instructions.

A query has `qid`, `query_txt`, `query_img_path`, `query_modality`, `pos_cand_list`, `neg_cand_list`
and `task_id`; a candidate has `did`, `txt`, `img_path` and `modality`. Ids are `dataset:number`.
The table is tab-separated, with the columns `query_modality`, `cand_modality`, `dataset_name` and
`dataset_id`, and one prompt in each further column. A file may hold two tasks, as WebQA's does, of
passages and of images; `task` selects one. Does not depend on other layouts. Invariant: as in
`assemble`; a row whose modality has an image has one.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec

from model_store.errors import DataError, WrongUsage
from model_store.output_files import check_outputs
from model_store.parts import file_identity
from model_store.training.data.converters.assemble import (
    CorpusDocuments,
    Relation,
    ShowProgress,
    convert,
    corpus_path_of,
    relation_line,
    without_progress,
)
from model_store.training.data.converters.outcomes import (
    BadRow,
    Outcomes,
    Skipped,
    clean_text,
    row_of_document,
)
from model_store.training.data.converters.pictures import Pictures
from model_store.training.data.converters.records import Record, RecordReader, read_records
from model_store.training.data.converters.tables import read_table
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.image_files import ImageMode
from model_store.training.data.instructions import MODALITIES
from model_store.training.data.rows import Side, modality_of

TASK_IDS = {"T-I": 0, "T-T": 1, "T-IT": 2, "I-T": 3, "I-I": 4, "IT-T": 6, "IT-I": 7, "IT-IT": 8}
"""The `task_id` of each task in M-BEIR, which has no task 5."""

Prompts = dict[tuple[str, str, str], list[str]]
"""Prompts by the query's modality, the candidate's modality, and the data set's number."""


class _Query(msgspec.Struct, forbid_unknown_fields=True):
    qid: str
    pos_cand_list: list[str]
    query_txt: str | None = None
    query_img_path: str | None = None
    query_modality: str = ""
    neg_cand_list: list[str] | None = None
    task_id: int | None = None
    query_src_content: Any = None


class _Candidate(msgspec.Struct, forbid_unknown_fields=True):
    did: str
    txt: str | None = None
    img_path: str | None = None
    modality: str = ""
    src_content: Any = None


_queries = RecordReader(_Query, {"": _Query.__struct_fields__})
_candidates = RecordReader(_Candidate, {"": _Candidate.__struct_fields__})


def convert_mbeir(
    queries: Path,
    pool: Path,
    target: Path,
    *,
    root: Path,
    instructions: Path | None = None,
    image_mode: ImageMode = "reference",
    task: str | None = None,
    seed: int = 0,
    max_bad: int = 0,
    show_progress: ShowProgress = without_progress,
) -> tuple[Outcomes, Outcomes]:
    """Write `target` and its corpus beside it, `*.corpus.jsonl`; image paths are relative to
    `root`.

    A query has one of its data set's prompts, drawn by `seed` and its id. `task`, such as `T-IT`,
    selects the queries of one task and the candidates of its modality. Raises `DataError`.
    """
    corpus_path = corpus_path_of(target)
    check_outputs(
        target, corpus_path, inputs=[path for path in (queries, pool, instructions) if path]
    )
    reader = _RowReader(task, Pictures(root, target.parent, image_mode), instructions, seed)
    described: dict[str, Any] = {"layout": "mbeir", "pool": file_identity(pool), "root": str(root)}
    # Reports of finished conversions have this key: another name would convert them again.
    described |= {"keeping": image_mode, "task": task}
    converted = convert(
        corpus_path,
        described,
        read_records([pool]),
        reader.document,
        max_bad=max_bad,
        show_progress=show_progress,
    )

    documents = CorpusDocuments(corpus_path, converted, filtered=task is not None)
    described |= {"queries": file_identity(queries), "seed": seed}
    described |= {"instructions": file_identity(instructions) if instructions else None}

    def example(record: Record, outcomes: Outcomes) -> bytes:
        relation = reader.relation(record, documents, outcomes)
        return relation_line(relation, documents, target.parent, outcomes)

    return converted, convert(
        target,
        described,
        read_records([queries]),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


class _RowReader:
    """Reads M-BEIR's rows, of one task or of all."""

    def __init__(
        self, task: str | None, pictures: Pictures, instructions: Path | None, seed: int
    ) -> None:
        self._task, self._modalities = task, _modalities_of(task)
        self._pictures, self._seed = pictures, seed
        self._prompts = read_prompts(instructions) if instructions else {}

    def document(self, record: Record, outcomes: Outcomes) -> bytes:
        """A candidate as a document; raises `BadRow` and `Skipped`."""
        row = _candidates.read(record)
        with row_of_document(row.did):
            image = self._pictures.keep(row.img_path, record.location)
            side = Side(clean_text(row.txt, outcomes), image)
            _check_image(side, row.modality, record.location)

        if side == Side(None, None):
            raise Skipped("empty candidate", row.did)
        if self._modalities and modality_of(side) != self._modalities[1]:
            raise Skipped("another modality")
        return document_line(Document(row.did, side), self._pictures.folder)

    def relation(self, record: Record, documents: CorpusDocuments, outcomes: Outcomes) -> Relation:
        """A query and its candidates' ids; raises `BadRow` and `Skipped`."""
        row, location = _queries.read(record), record.location
        if self._task and row.task_id not in (None, TASK_IDS[self._task]):
            raise Skipped("another task")

        text = clean_text(row.query_txt, outcomes)
        query = Side(text, self._pictures.keep(row.query_img_path, location))
        _check_image(query, row.query_modality, location)
        if query == Side(None, None):
            raise Skipped("empty query")
        if self._modalities and modality_of(query) != self._modalities[0]:
            raise Skipped("another modality")

        instruction = None
        if self._prompts:
            instruction = _draw_prompt(row, self._prompts, documents, self._seed, location)
        return Relation(
            id=row.qid,
            instruction=instruction,
            query=query,
            positives=tuple(row.pos_cand_list),
            negatives=tuple(row.neg_cand_list or ()),
            location=location,
        )


def _modalities_of(task: str | None) -> tuple[str, str] | None:
    """The modalities of a task's queries and candidates; None for all tasks."""
    if task is None:
        return None
    if task not in TASK_IDS:
        raise WrongUsage(
            f"M-BEIR has no task {task[:40]!r}: --task is one of {', '.join(TASK_IDS)}."
        )
    return MODALITIES[task]


def _check_image(side: Side, modality: str, location: str) -> None:
    if "image" in modality and side.image is None:
        raise BadRow(f"{location}: its modality is {modality[:40]!r}, and there is no image.")


def read_prompts(path: Path) -> Prompts:
    """The table of instructions; raises `DataError`."""
    prompts: Prompts = {}
    for number, row in read_table(path, ("query_modality", "cand_modality", "dataset_id")):
        found = [cell for name, cell in row.items() if name.startswith("prompt") and cell.strip()]
        if not found:
            raise DataError(f"{path}:{number}: there is no prompt.")
        prompts[row["query_modality"], row["cand_modality"], row["dataset_id"]] = found
    return prompts


def _draw_prompt(
    row: _Query, prompts: Prompts, documents: CorpusDocuments, seed: int, location: str
) -> str | None:
    """One of the prompts for the query's data set, its modality, and that of its first relevant
    candidate in the corpus; None where there is no such candidate."""
    dataset, _, _ = row.qid.partition(":")
    relevant = _first_relevant(row, documents)
    if relevant is None:
        return None

    found = prompts.get((row.query_modality, modality_of(relevant), dataset))
    if found is None:
        pair = f"from {row.query_modality[:40]!r} to {modality_of(relevant)!r}"
        raise BadRow(f"{location}: the table has no prompt {pair} in data set {dataset[:40]}.")
    return Random(f"{seed}/{row.qid}").choice(found)


def _first_relevant(row: _Query, documents: CorpusDocuments) -> Side | None:
    for name in row.pos_cand_list:
        side = documents.find(name)
        if side is not None:
            return side
    return None
