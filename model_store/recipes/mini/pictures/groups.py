"""Rows of named pictures, and held-out pictures by keyword as a benchmark's folder.

Depends on pictures that were drawn. Invariant: no picture of a row is held out, each of a benchmark
is, and no other candidate of a query has the query's words.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from model_store.output_files import json_line, output_file
from model_store.recipes.mini.sources.pictures.named import NamedPicture, asks_for, content_words
from model_store.synthetic.cells import INSTRUCTIONS
from model_store.training.data.rows import Example, Negative, Side

DOCUMENTS, CANDIDATES = 10, 20
_TRIES = 50


def picture_rows(pictures: Sequence[NamedPicture], count: int, seed: int) -> Iterator[Example]:
    """At most `count` rows; half of them ask for a picture by its title or a keyword, the others
    for the title or keyword of a picture."""
    rng = Random(f"pictures/{seed}")
    known = [picture for picture in pictures if not picture.held_out and picture.words]
    for number in range(count):
        relevant, query = _asked(known, rng)
        others = _others(known, relevant, query, DOCUMENTS - 1, rng)
        titles = {query, *(other.title for other in others)}
        if len(others) < DOCUMENTS - 1 or len(titles) < DOCUMENTS:
            continue
        if rng.random() < 0.5:
            cell, asks = "T-I", Side(query, None)
            first, rest = Side(None, relevant.path), [Side(None, other.path) for other in others]
        else:
            cell, asks = "I-T", Side(None, relevant.path)
            first, rest = Side(query, None), [Side(other.title, None) for other in others]
        yield Example(
            id=f"pictures/{number}",
            instruction=None if rng.random() < 0.5 else INSTRUCTIONS[cell],
            query=asks,
            positives=(first,),
            negatives=tuple(Negative(side, "hard") for side in rest),
            location="",
        )


def write_picture_task(
    folder: Path, pictures: Sequence[NamedPicture], queries: int, seed: int
) -> None:
    """Held-out pictures by title or keyword, as a folder that `gmr eval --task FOLDER` measures."""
    held = [picture for picture in pictures if picture.held_out and picture.words]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with output_file(folder / "corpus.jsonl") as write:
        for number, picture in enumerate(held):
            name = f"images/{number}.png"
            shutil.copyfile(picture.path, folder / name)
            write(json_line({"_id": f"d{number}", "image": name}))

    (folder / "instruction.txt").write_text(INSTRUCTIONS["T-I"] + "\n", encoding="utf-8")
    numbers = {picture.path: number for number, picture in enumerate(held)}
    with (
        output_file(folder / "queries.jsonl") as query,
        output_file(folder / "qrels" / "test.tsv") as judgement,
        output_file(folder / "candidates.trec") as candidate,
    ):
        judgement(b"query-id\tcorpus-id\tscore\n")
        for count, (text, (relevant, *others)) in enumerate(asked_for(pictures, queries, seed)):
            query(json_line({"_id": f"q{count}", "text": text}))
            judgement(f"q{count}\td{numbers[relevant.path]}\t1\n".encode())
            ranked = sorted(numbers[picture.path] for picture in (relevant, *others))
            for rank, number in enumerate(ranked, start=1):
                candidate(f"q{count} Q0 d{number} {rank} {-rank} held-out\n".encode())


def asked_for(
    pictures: Sequence[NamedPicture], queries: int, seed: int
) -> Iterator[tuple[str, list[NamedPicture]]]:
    """Titles or keywords of held-out pictures, each with its candidates, of which the first is
    relevant."""
    rng = Random(f"held-out pictures/{seed}")
    held = [picture for picture in pictures if picture.held_out and picture.words]
    for _ in range(queries):
        relevant, text = _asked(held, rng)
        yield text, [relevant, *_others(held, relevant, text, CANDIDATES - 1, rng)]


def _asked(pictures: Sequence[NamedPicture], rng: Random) -> tuple[NamedPicture, str]:
    """A picture, and a text that asks for it."""
    picture = rng.choice(pictures)
    return picture, asks_for(picture, rng)


def _others(
    pictures: Sequence[NamedPicture], relevant: NamedPicture, query: str, count: int, rng: Random
) -> list[NamedPicture]:
    """Pictures of which the query is not true; fewer where few are left."""
    asked = set(content_words((query,)))
    found: dict[Path, NamedPicture] = {}
    for other in rng.choices(pictures, k=count * _TRIES):
        if len(found) == count:
            break
        if other.path != relevant.path and not asked & set(other.words):
            found[other.path] = other
    return list(found.values())
