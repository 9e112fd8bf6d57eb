"""M-BEIR's layout (UniIR): a file of queries, a candidate pool, and a table of instructions.

A query's row: `qid`, `query_txt`, `query_img_path`, `query_modality`, `pos_cand_list`, `neg_cand_list`, `task_id`; a candidate's:
`did`, `txt`, `img_path`, `modality`. Ids are `dataset:number`. The table is tab-separated with the columns `query_modality`,
`cand_modality`, `dataset_name`, `dataset_id`, and one prompt in each column after. Knows that form, and no other. Invariant: as
in `assemble`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec

from model_store.training.converters.assemble import (
    Converted,
    Pictures,
    Relation,
    Skipped,
    convert,
    example_line,
    text_within,
)
from model_store.training.converters.tables import read_table
from model_store.training.corpus import Corpus, Document, document_line
from model_store.training.data import DataError, Side, read_lines
from model_store.training.image_files import Keeping
from model_store.training.parts import identity

Row = TypeVar("Row")
Prompts = dict[tuple[str, str, str], list[str]]
"""By the query's modality, the candidate's modality, and the data set's number."""


class _Query(msgspec.Struct):
    qid: str
    pos_cand_list: list[str]
    query_txt: str | None = None
    query_img_path: str | None = None
    query_modality: str = ""
    neg_cand_list: list[str] | None = None


class _Candidate(msgspec.Struct):
    did: str
    txt: str | None = None
    img_path: str | None = None
    modality: str = ""


_queries = msgspec.json.Decoder(_Query)
_candidates = msgspec.json.Decoder(_Candidate)


def convert_mbeir(
    queries: Path,
    pool: Path,
    target: Path,
    *,
    root: Path,
    instructions: Path | None = None,
    keeping: Keeping = "reference",
    seed: int = 0,
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus beside it, `*.corpus.jsonl`; image paths are relative to `root`.

    A query gets one of its data set's prompts, drawn by `seed` and its id. Raises `DataError`.
    """
    prompts = read_prompts(instructions) if instructions else {}
    pictures = Pictures(root, target.parent, keeping)
    described: dict[str, Any] = {"layout": "mbeir", "pool": identity(pool), "root": str(root), "keeping": keeping}
    corpus_path = target.with_name(f"{target.stem}.corpus.jsonl")

    def document(item: tuple[str, bytes], counts: Counter[str]) -> bytes:
        place, line = item
        row = _decoded(_candidates, line, place)
        text, image = text_within(row.txt, counts), pictures.keep(row.img_path, place)
        if text is None and image is None:
            raise Skipped("empty candidate")
        return document_line(Document(row.did, Side(text, image)), target.parent)

    documents = convert(corpus_path, described, _placed(pool), document)
    corpus = Corpus(corpus_path)

    def example(item: tuple[str, bytes], counts: Counter[str]) -> bytes:
        place, line = item
        row = _decoded(_queries, line, place)
        query = Side(text_within(row.query_txt, counts), pictures.keep(row.query_img_path, place))
        if query == Side(None, None):
            raise Skipped("empty query")
        instruction = _prompt(row, prompts, corpus, seed, place) if prompts else None
        relation = Relation(row.qid, instruction, query, tuple(row.pos_cand_list), tuple(row.neg_cand_list or ()), place)
        return example_line(relation, corpus, target.parent, counts)

    described |= {"queries": identity(queries), "seed": seed, "instructions": identity(instructions) if instructions else None}
    return documents, convert(target, described, _placed(queries), example)


def read_prompts(path: Path) -> Prompts:
    """The table of instructions; raises `DataError`, which names file and line."""
    prompts: Prompts = {}
    for number, row in read_table(path, ("query_modality", "cand_modality", "dataset_id")):
        told = [cell for name, cell in row.items() if name.startswith("prompt") and cell.strip()]
        if not told:
            raise DataError(f"{path}:{number}: there is no prompt.")
        prompts[row["query_modality"], row["cand_modality"], row["dataset_id"]] = told
    return prompts


def _prompt(row: _Query, prompts: Prompts, corpus: Corpus, seed: int, place: str) -> str:
    """One of the prompts for the query's data set, its modality, and that of its first relevant candidate."""
    dataset = row.qid.split(":", 1)[0]
    found = corpus.find(row.pos_cand_list[0]) if row.pos_cand_list else None
    modality = _modality(found.side) if found else "any"
    told = prompts.get((row.query_modality, modality, dataset))
    if told is None and found is not None:
        raise DataError(f"{place}: the table has no prompt from {row.query_modality!r} to {modality!r} in data set {dataset}.")
    return Random(f"{seed}/{row.qid}").choice(told or [""])


def _modality(side: Side) -> str:
    return "image,text" if side.image and side.text else "image" if side.image else "text"


def _placed(path: Path) -> Iterator[tuple[str, bytes]]:
    return ((f"{path}:{number}", line) for number, line in read_lines(path))


def _decoded(decoder: msgspec.json.Decoder[Row], line: bytes, place: str) -> Row:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{place}: this is no row of M-BEIR ({error}).") from None
