"""The nine cells of the paper's benchmark (section 5, MRB) in miniature, with generated queries.

Does not depend on models. Invariant: exactly one document of a query is relevant; half of the
others are near misses.
"""

from __future__ import annotations

from itertools import chain
from random import Random

from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.synthetic import facts, lexical, pages, scenes
from model_store.synthetic.drawing import SHAPES, Scene
from model_store.synthetic.examples import Example, Sampler, Side
from model_store.synthetic.facts import Fact
from model_store.synthetic.texts import Split

INSTRUCTIONS = {
    "T-T": "Given a question, retrieve relevant passages that answer the question.",
    "I-I": "Find a day-to-day image that looks similar to the provided image.",
    "T-I": "Find an image that matches the given caption.",
    "T-VD": "Find a screenshot that relevant to the user's question.",
    "I-T": "Find an image caption describing the following everyday image.",
    "T-IT": "Find a Wikipedia image that answers this question.",
    "IT-T": (
        "Retrieve a fact-based paragraph that provides an answer to the given query about the"
        " image."
    ),
    "IT-I": (
        "Retrieve a day-to-day image that aligns with the modification instructions of the provided"
        " image."
    ),
    "IT-IT": (
        "Determine the Wikipedia image-snippet pair that matches my question about this image."
    ),
}
"""Instructions of the paper's table 10, or the nearest of them."""
CELLS = tuple(INSTRUCTIONS)

NUMBER_WORDS = frozenset(chain(*scenes.NUMBERS.values()))


def _same_words() -> dict[str, frozenset[str]]:
    """For each number and each shape: the words that mean the same."""
    same: dict[str, frozenset[str]] = {}
    for forms in scenes.NUMBERS.values():
        words = frozenset((*forms, "an") if "a" in forms else forms)
        same.update(dict.fromkeys(forms, words))
    for shape in SHAPES:
        forms = (shape, scenes.plural(shape))
        same.update(dict.fromkeys(forms, frozenset(forms)))
    return same


_SAME_WORDS = _same_words()


def sample(cell: str, rng: Random, split: Split, negatives: int, *, plain: bool = False) -> Example:
    """One example of a cell with `negatives` irrelevant documents.

    A `plain` one has the family's default instruction in place of the cell's own.
    """
    query, documents = _SAMPLERS[cell](rng, split, negatives)
    return Example(cell, instruction(cell, plain=plain), query, documents, evidence(query))


def instruction(cell: str, *, plain: bool) -> str:
    """The instruction of a cell's examples; of `plain` ones, the family's default."""
    return DEFAULT_INSTRUCTION if plain else INSTRUCTIONS[cell]


def _text_to_text(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Passages alone where held out; in training also lists of words, so that matching does not
    depend on knowing a word."""
    if split == "heldout":
        return lexical.passages_task(rng, split, negatives)

    tasks: tuple[Sampler, ...] = (
        lexical.passages_task,
        lexical.words_task,
        lexical.names_task,
        _SCENES_AS_TEXT,
        _FACTS_AS_TEXT,
    )
    (task,) = rng.choices(tasks, (45, 25, 10, 10, 10))
    return task(rng, split, negatives)


def _want_text(want: scenes.Want, rng: Random) -> Side:
    return (want.text(rng),)


def _scene_text(scene: Scene, rng: Random) -> Side:
    return (scenes.caption(scene, rng),)


def _scene_picture(scene: Scene, rng: Random) -> Side:
    return (scenes.picture(scene, rng),)


def _question(fact: Fact, rng: Random) -> Side:
    return (fact.question(rng, named=True),)


def _picture_and_question(fact: Fact, rng: Random) -> Side:
    return (fact.picture(rng), fact.question(rng, named=False))


def _statement(fact: Fact, rng: Random) -> Side:
    return (fact.statement(rng, named=True),)


def _picture_and_statement(fact: Fact, rng: Random) -> Side:
    return (fact.picture(rng), fact.statement(rng, named=False))


_SCENES_AS_TEXT = scenes.captions(_want_text, _scene_text)
_FACTS_AS_TEXT = facts.facts(_question, _statement)
_SAMPLERS: dict[str, Sampler] = {
    "T-T": _text_to_text,
    "I-I": scenes.same_scene(_scene_picture),
    "T-I": scenes.captions(_want_text, _scene_picture),
    "T-VD": pages.text_to_page,
    "I-T": scenes.same_scene(_scene_text),
    "T-IT": facts.facts(_question, _picture_and_statement),
    "IT-T": facts.facts(_picture_and_question, _statement),
    "IT-I": scenes.modified,
    "IT-IT": facts.facts(_picture_and_question, _picture_and_statement),
}


def evidence(side: Side) -> frozenset[str]:
    """The words that, found in a document, speak for it: those of the query's texts, and those that
    are true of its pictures."""
    found: set[str] = set()
    for part in side:
        if isinstance(part, str):
            found |= _text_evidence(frozenset(lexical.terms(part)))
        else:
            found |= part.info["words"]
    return frozenset(found.union(*(_SAME_WORDS.get(word, ()) for word in found)))


def _text_evidence(terms: frozenset[str]) -> set[str]:
    """The content words and numbers of a text, and all words of each aspect that it mentions."""
    words = {term for term in terms if term not in lexical.STOPWORDS or term in NUMBER_WORDS}
    for aspect in facts.ASPECT_WORDS:
        if aspect & terms:
            words |= aspect
    return words
