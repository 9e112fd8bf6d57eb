"""MS MARCO's layout: `collection.tsv`, `queries.tsv` and `qrels.train.tsv`, or `triples.train.small.tsv`.

Knows those tables: id and text; id and text; query, 0, passage, judgement; query, relevant passage, irrelevant passage as texts.
Judgements are held in memory (half a million for training), texts are not. Invariant: as in `assemble`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from model_store.training.converters.assemble import Converted, Relation, Skipped, convert, example_line, text_within
from model_store.training.converters.tables import cells_of, read_qrels, read_rows
from model_store.training.corpus import Corpus, Document, document_line
from model_store.training.data import Example, Negative, Side, read_lines
from model_store.training.parts import identity
from model_store.training.writing import line_of

_Line = tuple[int, bytes]


def convert_msmarco(
    collection: Path, queries: Path, qrels: Path, target: Path, *, instruction: str | None = None
) -> tuple[Converted, Converted]:
    """Write `target` and its corpus beside it, `*.corpus.jsonl`; queries without a relevant passage are left out."""
    described: dict[str, Any] = {"layout": "msmarco", "collection": identity(collection)}
    corpus_path = target.with_name(f"{target.stem}.corpus.jsonl")

    def document(item: _Line, counts: Counter[str]) -> bytes:
        name, written = cells_of(item[1], collection, item[0], 2)
        text = text_within(written, counts)
        if text is None:
            raise Skipped("empty passage")
        return document_line(Document(name, Side(text, None)), target.parent)

    documents = convert(corpus_path, described, read_lines(collection), document)
    corpus, relevant = Corpus(corpus_path), read_qrels(qrels)

    def example(item: tuple[int, list[str]], counts: Counter[str]) -> bytes:
        number, (name, written) = item
        text = text_within(written, counts)
        if text is None:
            raise Skipped("empty query")
        relation = Relation(name, instruction, Side(text, None), relevant.of(name), (), f"{queries}:{number}")
        return example_line(relation, corpus, target.parent, counts)

    described |= {"queries": identity(queries), "qrels": identity(qrels), "instruction": instruction}
    return documents, convert(target, described, read_rows(queries, 2), example)


def convert_triples(triples: Path, target: Path, *, instruction: str | None = None) -> Converted:
    """Write `target` from triples of texts: each row an example with one hard negative, named by its line."""

    def example(item: _Line, counts: Counter[str]) -> bytes:
        texts = [text_within(text, counts) for text in cells_of(item[1], triples, item[0], 3)]
        if None in texts:
            raise Skipped("empty text")
        query, positive, negative = (Side(text, None) for text in texts)
        if positive == negative:
            raise Skipped("the relevant passage is the irrelevant one")
        name = f"{triples.name}:{item[0]}"
        return line_of(Example(name, instruction, query, (positive,), (Negative(negative, "hard"),), name), target.parent)

    described = {"layout": "msmarco triples", "triples": identity(triples), "instruction": instruction}
    return convert(target, described, read_lines(triples), example)
