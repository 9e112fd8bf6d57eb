"""Draws the exhibits of this example's museum: pictures with a label, and pictures alone.

Pictures are drawn by the generator that gmr-tiny was trained with; what a question asks for was no
part of that training. The pages of the corpus are written by hand, in pages.jsonl. Invariant: each
run makes the same files. Needs gmr-rerank: `python examples/rag/make_corpus.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from model_store.synthetic.drawing import Group, Scene
from model_store.synthetic.facts import Fact
from model_store.synthetic.scenes import any_scene, picture, plural

FOLDER = Path(__file__).parent / "corpus"
SEED = 20261129
THINGS = 12
PICTURES = 16
QUESTIONS = 8
"""Questions about labels, and about drawings."""

ASPECTS = {
    "price": ("What is the price of {}?", "The price of this thing is {} coins."),
    "weight": ("What is the weight of {}?", "The weight of this thing is {} kilograms."),
    "age": ("What is the age of {}?", "The age of this thing is {} years."),
    "owner": ("Who is the owner of {}?", "The owner of this thing is {}."),
    "origin": ("What is the origin of {}?", "The origin of this thing is {}."),
    "material": ("What is the material of {}?", "The material of this thing is {}."),
}
VALUES = {
    "owner": ("Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo"),
    "origin": ("Norway", "Brazil", "Egypt", "India", "Japan", "Kenya", "Mexico", "Poland"),
    "material": ("wood", "glass", "steel", "stone", "paper", "copper", "wool", "clay"),
}
NUMBERS = ("", "one", "two", "three", "four")

Row = dict[str, object]


def labels(rng: Random) -> tuple[list[Row], list[Row]]:
    """A thing's picture with a line of its label, and questions that name the thing.

    The label does not name it: only the picture shows what "this thing" is.
    """
    documents: list[Row] = []
    questions: list[Row] = []
    for thing in _things(rng):
        name = f"{thing.colour}-{thing.shape}"
        _draw(Scene((thing,)), name, rng)
        for aspect, (question, statement) in ASPECTS.items():
            value = rng.choice(VALUES.get(aspect, range(2, 100)))
            identifier = f"label-{name}-{aspect}"
            text = statement.format(value)
            documents.append({"id": identifier, "text": text, "image": f"pictures/{name}.png"})
            if Fact(thing, aspect).split() == "heldout":
                asked = question.format(f"the {thing.colour} {thing.shape}")
                questions.append({"query": asked, "relevant": [identifier], "kind": "labels"})
    rng.shuffle(documents)
    rng.shuffle(questions)
    return documents, questions[:QUESTIONS]


def drawings(rng: Random) -> tuple[list[Row], list[Row]]:
    """Pictures without a word, and questions that describe one."""
    scenes: dict[str, Scene] = {}
    while len(scenes) < PICTURES:
        scene = any_scene(rng, "heldout" if len(scenes) < QUESTIONS else None)
        if len(scene.groups) == 1 and scene.groups[0].count == 1:
            continue  # a thing with a label could be meant
        scenes.setdefault(_described(scene), scene)

    documents: list[Row] = []
    questions: list[Row] = []
    for number, (words, scene) in enumerate(scenes.items(), 1):
        name = f"drawing-{number:02}"
        _draw(scene, name, rng)
        documents.append({"id": name, "image": f"pictures/{name}.png"})
        if number <= QUESTIONS:
            questions.append({"query": words, "relevant": [name], "kind": "drawings"})
    return documents, questions


def _things(rng: Random) -> list[Group]:
    """Things of which each has a fact that was held out from training."""
    things: list[Group] = []
    while len(things) < THINGS:
        thing = Group(1, *_colour_and_shape(rng))
        held_out = any(Fact(thing, aspect).split() == "heldout" for aspect in ASPECTS)
        if held_out and thing not in things:
            things.append(thing)
    return things


def _colour_and_shape(rng: Random) -> tuple[str, str]:
    (group,) = any_scene(rng).groups[:1]
    return group.colour, group.shape


def _described(scene: Scene) -> str:
    """A scene in words, such as "two red circles and a blue star"."""
    words = []
    for group in scene.groups:
        noun = plural(group.shape) if group.count > 1 else group.shape
        words.append(f"{NUMBERS[group.count]} {group.colour} {noun}")
    return " and ".join(words)


def _draw(scene: Scene, name: str, rng: Random) -> None:
    picture(scene, rng).save(FOLDER / "pictures" / f"{name}.png", optimize=True)


def _write(name: str, rows: Iterable[Row]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (FOLDER / name).write_text(lines, encoding="utf-8")


def main() -> None:
    """Write exhibits.jsonl, exhibit-questions.jsonl and the pictures."""
    (FOLDER / "pictures").mkdir(parents=True, exist_ok=True)
    rng = Random(SEED)
    documents: list[Row] = []
    questions: list[Row] = []
    for some, asked in (labels(rng), drawings(rng)):
        documents += some
        questions += asked
    _write("exhibits.jsonl", documents)
    _write("exhibit-questions.jsonl", questions)


if __name__ == "__main__":
    main()
