"""M-BEIR's layout (UniIR): a file of queries, a candidate pool, and a table of instructions.

A query's row: `qid`, `query_txt`, `query_img_path`, `query_modality`, `pos_cand_list`,
`neg_cand_list`, `task_id`; a candidate's: `did`, `txt`, `img_path`, `modality`. Ids are
`dataset:number`. The table is tab-separated with the columns `query_modality`, `cand_modality`,
`dataset_name`, `dataset_id`, and one prompt in each column after. A file may hold two tasks
(WebQA's, of passages and of images): one of them is taken by name. Knows that form, and no other.
Invariant: as in `assemble`; a row that says it has an image has one.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec

from model_store.training.data.converters.assemble import (
    Documents,
    Relation,
    ShowProgress,
    convert,
    corpus_of,
    example_line,
    no_progress,
)
from model_store.training.data.converters.outcomes import (
    BadRow,
    Converted,
    Skipped,
    of_document,
    text_within,
)
from model_store.training.data.converters.pictures import Pictures
from model_store.training.data.converters.records import Reader, Record, read_records
from model_store.training.data.converters.tables import read_table
from model_store.training.data.corpus import Document, document_line
from model_store.training.data.image_files import ImageMode
from model_store.training.data.instructions import MODALITIES
from model_store.training.data.resumable import identity
from model_store.training.data.row_files import check_outputs
from model_store.training.data.rows import DataError, Side, WrongUsage, modality_of

TASK_IDS = {"T-I": 0, "T-T": 1, "T-IT": 2, "I-T": 3, "I-I": 4, "IT-T": 6, "IT-I": 7, "IT-IT": 8}
"""M-BEIR's numbers of tasks, as `task_id` has them; 5 is none of its tasks."""

Prompts = dict[tuple[str, str, str], list[str]]
"""By the query's modality, the candidate's modality, and the data set's number."""


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


_queries = Reader(_Query, {"": _Query.__struct_fields__})
_candidates = Reader(_Candidate, {"": _Candidate.__struct_fields__})


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
    show_progress: ShowProgress = no_progress,
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus beside it, `*.corpus.jsonl`; image paths are relative to
    `root`.

    A query gets one of its data set's prompts, drawn by `seed` and its id. `task`, as `T-IT`, takes
    the queries of that task and the candidates of its modality alone. Raises `DataError`.
    """
    corpus_path = corpus_of(target)
    check_outputs(
        target, corpus_path, inputs=[path for path in (queries, pool, instructions) if path]
    )
    reading = _Reading(task, Pictures(root, target.parent, image_mode), instructions, seed)
    described: dict[str, Any] = {"layout": "mbeir", "pool": identity(pool), "root": str(root)}
    described |= {"keeping": image_mode, "task": task}
    converted = convert(
        corpus_path,
        described,
        read_records([pool]),
        reading.document,
        max_bad=max_bad,
        show_progress=show_progress,
    )

    documents = Documents(corpus_path, converted, filtered=task is not None)
    described |= {"queries": identity(queries), "seed": seed}
    described |= {"instructions": identity(instructions) if instructions else None}

    def example(record: Record, done: Converted) -> bytes:
        return example_line(
            reading.relation(record, documents, done), documents, target.parent, done
        )

    return converted, convert(
        target,
        described,
        read_records([queries]),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


class _Reading:
    """M-BEIR's rows as ours, of one task or of all."""

    def __init__(
        self, task: str | None, pictures: Pictures, instructions: Path | None, seed: int
    ) -> None:
        self._task, self._wanted = task, _wanted(task)
        self._pictures, self._seed = pictures, seed
        self._prompts = read_prompts(instructions) if instructions else {}

    def document(self, record: Record, done: Converted) -> bytes:
        """A candidate as a document; raises `BadRow` and `Skipped`."""
        row = _candidates.read(record)
        with of_document(row.did):
            side = Side(text_within(row.txt, done), self._pictures.keep(row.img_path, record[0]))
            _check_image(side, row.modality, record[0])
        if side == Side(None, None):
            raise Skipped("empty candidate", row.did)
        if self._wanted and modality_of(side) != self._wanted[1]:
            raise Skipped("another modality")
        return document_line(Document(row.did, side), self._pictures.folder)

    def relation(self, record: Record, documents: Documents, done: Converted) -> Relation:
        """A query and its candidates' ids; raises `BadRow` and `Skipped`."""
        row, place = _queries.read(record), record[0]
        if self._task and row.task_id not in (None, TASK_IDS[self._task]):
            raise Skipped("another task")
        query = Side(
            text_within(row.query_txt, done), self._pictures.keep(row.query_img_path, place)
        )
        _check_image(query, row.query_modality, place)
        if query == Side(None, None):
            raise Skipped("empty query")
        if self._wanted and modality_of(query) != self._wanted[0]:
            raise Skipped("another modality")
        instruction = (
            _prompt(row, self._prompts, documents, self._seed, place) if self._prompts else None
        )
        positives, negatives = tuple(row.pos_cand_list), tuple(row.neg_cand_list or ())
        return Relation(row.qid, instruction, query, positives, negatives, place)


def _wanted(task: str | None) -> tuple[str, str] | None:
    """The modalities of a task's queries and candidates."""
    if task is None:
        return None
    if task not in TASK_IDS:
        raise WrongUsage(
            f"M-BEIR has no task {task[:40]!r}: --task is one of {', '.join(TASK_IDS)}."
        )
    return MODALITIES[task]


def _check_image(side: Side, modality: str, place: str) -> None:
    if "image" in modality and side.image is None:
        raise BadRow(f"{place}: its modality is {modality[:40]!r}, and there is no image.")


def read_prompts(path: Path) -> Prompts:
    """The table of instructions; raises `DataError`, which names file and line."""
    prompts: Prompts = {}
    for number, row in read_table(path, ("query_modality", "cand_modality", "dataset_id")):
        told = [cell for name, cell in row.items() if name.startswith("prompt") and cell.strip()]
        if not told:
            raise DataError(f"{path}:{number}: there is no prompt.")
        prompts[row["query_modality"], row["cand_modality"], row["dataset_id"]] = told
    return prompts


def _prompt(
    row: _Query, prompts: Prompts, documents: Documents, seed: int, place: str
) -> str | None:
    """One of the prompts for the query's data set, its modality, and that of its first relevant
    candidate there is."""
    dataset = row.qid.split(":", 1)[0]
    found = next((side for name in row.pos_cand_list if (side := documents.find(name))), None)
    if found is None:
        return None
    told = prompts.get((row.query_modality, modality_of(found), dataset))
    if told is None:
        pair = f"from {row.query_modality[:40]!r} to {modality_of(found)!r}"
        raise BadRow(f"{place}: the table has no prompt {pair} in data set {dataset[:40]}.")
    return Random(f"{seed}/{row.qid}").choice(told)
