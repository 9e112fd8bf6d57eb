"""Held-out groups of the real texts, and everyday questions: what the next gmr-tiny is judged by.

Depends on passages and on files of questions, not on a network; only `hits` reads one. Invariant:
every document of a group is of a held-out document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from model_store.output_files import json_line, output_file
from model_store.recipes.mini.sources.passages import Passage
from model_store.recipes.mini.texts.groups import words

CANDIDATES = 20
MANUALS = (
    "coreutils", "findutils", "tar", "util-linux", "git-man", "manpages", "manpages-dev",
)  # fmt: skip
_MOST = 200
_SEED = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """A question and its candidates, of which the first is relevant."""

    query: str
    documents: tuple[str, ...]


def natural_questions() -> dict[str, dict[str, str]]:
    """Questions by the page or the start of the passage that answers them, by kind."""
    path = Path(__file__).parents[1] / "sources" / "questions.json"
    questions: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return questions


def everyday_questions() -> list[Measured]:
    """Ten questions of daily life; each has one sensible answer among five."""
    path = Path(__file__).with_name("everyday.json")
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Measured(query, tuple(documents)) for query, documents in rows]


def held_out_groups(passages: Sequence[Passage]) -> dict[str, list[Measured]]:
    """Groups by kind, with 19 candidates at random from the same source."""
    rng = Random(_SEED)
    held = [passage for passage in passages if passage.held_out]
    questions = natural_questions()
    groups: dict[str, list[Measured]] = {
        "manual pages": list(_manuals(held, questions["manual pages"], rng)),
        "Python documentation": list(_python(held, questions["Python documentation"], rng)),
    }
    answers = [p for p in held if p.questions and _is_faq(p)]
    texts = [passage.text for passage in answers]
    groups["frequent questions"] = [
        _with_others(passage.questions[0], passage.text, texts, rng) for passage in answers
    ]
    senses = [passage for passage in held if passage.source == "wordnet-base"]
    heads = [words(passage) for passage in senses]
    groups["word of a definition"] = [
        _with_others(passage.questions[-1], words(passage), heads, rng)
        for passage in rng.sample(senses, min(_MOST, len(senses)))
    ]
    return {kind: found for kind, found in groups.items() if found}


def _manuals(held: list[Passage], asked: Mapping[str, str], rng: Random) -> Iterator[Measured]:
    """The first passage of each page is its description."""
    pages: dict[str, str] = {}
    for passage in held:
        if passage.questions and passage.source in MANUALS:
            pages.setdefault(passage.document, passage.text)
    for page, question in asked.items():
        if page in pages:
            yield _with_others(question, pages[page], list(pages.values()), rng)


def _python(held: list[Passage], asked: Mapping[str, str], rng: Random) -> Iterator[Measured]:
    texts = [
        passage.text
        for passage in held
        if passage.source == "python3.11-doc" and len(passage.text) > 60
    ]
    for start, question in asked.items():
        name = start if " " in start or ":" in start else f"{start}:"
        found = [text for text in texts if text.startswith(name)]
        found = found or [text for text in texts if text.startswith(name.rsplit(".", 1)[-1])]
        if found:
            yield _with_others(question, max(found, key=len), texts, rng)


def _is_faq(passage: Passage) -> bool:
    document = passage.document
    return passage.source == "debian-faq" or document.startswith(("faq/", "perlfaq"))


def _with_others(query: str, relevant: str, texts: Sequence[str], rng: Random) -> Measured:
    others = sorted(set(texts) - {relevant})
    drawn = rng.sample(others, min(CANDIDATES - 1, len(others)))
    return Measured(query, (relevant, *drawn))


def write_task(folder: Path, groups: Sequence[Measured]) -> None:
    """Write groups as a folder that `gmr eval --task FOLDER` measures, candidates included."""
    numbers: dict[str, str] = {}
    for group in groups:
        for text in group.documents:
            numbers.setdefault(text, f"d{len(numbers)}")

    with output_file(folder / "corpus.jsonl") as write:
        for text, number in numbers.items():
            write(json_line({"_id": number, "text": text}))
    with (
        output_file(folder / "queries.jsonl") as query,
        output_file(folder / "qrels" / "test.tsv") as judgement,
        output_file(folder / "candidates.trec") as candidate,
    ):
        judgement(b"query-id\tcorpus-id\tscore\n")
        for count, group in enumerate(groups):
            query(json_line({"_id": f"q{count}", "text": group.query}))
            judgement(f"q{count}\t{numbers[group.documents[0]]}\t1\n".encode())
            ranked = sorted(group.documents, key=lambda text: int(numbers[text][1:]))
            for rank, text in enumerate(ranked, start=1):
                line = f"q{count} Q0 {numbers[text]} {rank} {-rank} held-out\n"
                candidate(line.encode())
