"""The nine cells of the paper's benchmark (section 5, MRB) in miniature: generated queries, each
with documents of which one is relevant for certain and half of the others are near misses.

Knows which tasks make up a cell, nothing of models.
"""

from __future__ import annotations

from random import Random

from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.synthetic import facts, lexical, pages, scenes
from model_store.synthetic.drawing import SHAPES
from model_store.synthetic.examples import Example, Sampler, Side
from model_store.synthetic.texts import Split

# The paper's table 10 instructions, or the nearest of them.
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
CELLS = tuple(INSTRUCTIONS)

NUMBER_WORDS = frozenset(word for words in scenes.NUMBERS.values() for word in words)
_SAME_WORD = {
    word: frozenset((*words, "an") if "a" in words else words)
    for words in scenes.NUMBERS.values()
    for word in words
}
_SAME_WORD |= {
    word: frozenset(forms)
    for shape in SHAPES
    for forms in [(shape, scenes.plural(shape))]
    for word in forms
}


def sample(cell: str, rng: Random, split: Split, negatives: int, *, plain: bool = False) -> Example:
    """One example of a cell with `negatives` irrelevant documents; `plain` asks with the default
    instruction."""
    query, documents = _SAMPLERS[cell](rng, split, negatives)
    return Example(
        cell,
        DEFAULT_INSTRUCTION if plain else INSTRUCTIONS[cell],
        query,
        documents,
        _evidence(query),
    )


def _text_to_text(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Held out, passages alone; in training, also lists of words, so that matching does not depend
    on knowing a word."""
    if split == "heldout":
        return lexical.passages_task(rng, split, negatives)
    tasks: tuple[Sampler, ...] = (
        lexical.passages_task,
        lexical.words_task,
        lexical.names_task,
        _TOLD_SCENES,
        _TOLD_FACTS,
    )
    return rng.choices(tasks, (45, 25, 10, 10, 10))[0](rng, split, negatives)


_TOLD_SCENES = scenes.captions(
    lambda want, rng: (want.say(rng),), lambda scene, rng: (scenes.caption(scene, rng),)
)
_TOLD_FACTS = facts.facts(
    lambda fact, rng: (fact.ask(rng, named=True),), lambda fact, rng: (fact.tell(rng, named=True),)
)
_SAMPLERS: dict[str, Sampler] = {
    "T-T": _text_to_text,
    "I-I": scenes.same_scene(lambda scene, rng: (scenes.picture(scene, rng),)),
    "T-I": scenes.captions(
        lambda want, rng: (want.say(rng),), lambda scene, rng: (scenes.picture(scene, rng),)
    ),
    "T-VD": pages.text_to_page,
    "I-T": scenes.same_scene(lambda scene, rng: (scenes.caption(scene, rng),)),
    "T-IT": facts.facts(
        lambda fact, rng: (fact.ask(rng, named=True),),
        lambda fact, rng: (fact.picture(rng), fact.tell(rng, named=False)),
    ),
    "IT-T": facts.facts(
        lambda fact, rng: (fact.picture(rng), fact.ask(rng, named=False)),
        lambda fact, rng: (fact.tell(rng, named=True),),
    ),
    "IT-I": scenes.modified,
    "IT-IT": facts.facts(
        lambda fact, rng: (fact.picture(rng), fact.ask(rng, named=False)),
        lambda fact, rng: (fact.picture(rng), fact.tell(rng, named=False)),
    ),
}


def _evidence(query: Side) -> frozenset[str]:
    """The words that, found in a document, speak for it: those of the query's text and those true
    of its pictures."""
    found: set[str] = set()
    for part in query:
        if isinstance(part, str):
            said = frozenset(lexical.terms(part))
            found |= {
                term for term in said if term not in lexical.STOPWORDS or term in NUMBER_WORDS
            }
            found |= {word for aspect in facts.ASPECT_WORDS if aspect & said for word in aspect}
        else:
            found |= part.info["words"]
    return frozenset(found.union(*(_SAME_WORD.get(word, ()) for word in found)))
