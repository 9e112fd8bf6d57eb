"""Questions about things that a picture shows or a text names: the cells T-IT, IT-T and IT-IT, and
some examples of T-T.

Does not depend on models. Invariant: exactly one document is about the thing and the aspect of the
query; the others share the thing, the aspect, or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from model_store.synthetic.drawing import COLOURS, SHAPES, Group, Scene
from model_store.synthetic.examples import Sampler, Side, split_of
from model_store.synthetic.lexical import content_terms
from model_store.synthetic.scenes import picture
from model_store.synthetic.texts import Split

_ASPECTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Random], str]]] = {
    "price": (
        ("How much does {} cost?", "What is the price of {}?", "price of {}"),
        ("{} costs {}.", "The price of {} is {}."),
        lambda rng: f"{rng.randint(2, 99)} coins",
    ),
    "weight": (
        ("How heavy is {}?", "What is the weight of {}?", "weight of {}"),
        ("{} weighs {}.", "The weight of {} is {}."),
        lambda rng: f"{rng.randint(2, 99)} kilograms",
    ),
    "owner": (
        ("Who owns {}?", "Who is the owner of {}?", "owner of {}"),
        ("{} belongs to {}.", "The owner of {} is {}."),
        lambda rng: rng.choice(
            ("Anna", "Boris", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Irene", "Jonas")
        ),
    ),
    "origin": (
        ("Where does {} come from?", "What is the origin of {}?", "origin of {}"),
        ("{} comes from {}.", "The origin of {} is {}."),
        lambda rng: rng.choice(
            (
                "Norway",
                "Brazil",
                "Egypt",
                "India",
                "Japan",
                "Kenya",
                "Mexico",
                "Poland",
                "Spain",
                "Turkey",
            )
        ),
    ),
    "age": (
        ("How old is {}?", "What is the age of {}?", "age of {}"),
        ("{} is {} old.", "The age of {} is {}."),
        lambda rng: f"{rng.randint(2, 99)} years",
    ),
    "material": (
        ("What is {} made of?", "What is the material of {}?", "material of {}"),
        ("{} is made of {}.", "The material of {} is {}."),
        lambda rng: rng.choice(
            (
                "wood",
                "glass",
                "steel",
                "stone",
                "paper",
                "plastic",
                "copper",
                "wool",
                "leather",
                "clay",
            )
        ),
    ),
}
"""The forms of a question, the forms of a statement, and a random value, of each aspect."""


def _words_of_aspect(aspect: str) -> frozenset[str]:
    questions, statements, _ = _ASPECTS[aspect]
    return frozenset(content_terms(" ".join((*questions, *statements))))


ASPECT_WORDS = tuple(map(_words_of_aspect, _ASPECTS))
"""The words that distinguish an aspect, a set for each."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One aspect of one thing."""

    thing: Group
    aspect: str

    def split(self) -> Split:
        """The split of the fact."""
        return split_of((self.thing.colour, self.thing.shape, self.aspect))

    def question(self, rng: Random, *, named: bool) -> str:
        """A question. The thing is `named`, or is a pronoun whose noun a picture shows."""
        forms, _, _ = _ASPECTS[self.aspect]
        return rng.choice(forms).format(self._name(rng, named))

    def statement(self, rng: Random, *, named: bool) -> str:
        """An answer with a random value."""
        _, forms, value = _ASPECTS[self.aspect]
        text = rng.choice(forms).format(self._name(rng, named), value(rng))
        return text[0].upper() + text[1:]

    def picture(self, rng: Random) -> Image.Image:
        """A picture of the thing alone."""
        return picture(Scene((self.thing,)), rng)

    def _name(self, rng: Random, named: bool) -> str:
        if named:
            return f"the {self.thing.colour} {self.thing.shape}"
        return rng.choice(("it", "this", "this thing", "the thing"))


def facts(
    query_of: Callable[[Fact, Random], Side], document_of: Callable[[Fact, Random], Side]
) -> Sampler:
    """A question about a fact, with facts as documents."""

    def sampler(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
        fact, irrelevant = _sample(rng, split, negatives)
        query = query_of(fact, rng)
        return query, [document_of(stated, rng) for stated in (fact, *irrelevant)]

    return sampler


def _sample(rng: Random, split: Split, negatives: int) -> tuple[Fact, list[Fact]]:
    """A fact of the given split, and irrelevant ones.

    They are, in turn: about the same thing, about the same aspect, about the same aspect of a
    similar thing, and about anything. In training, none of them is held out.
    """
    while True:
        fact = Fact(_any_thing(rng), rng.choice(tuple(_ASPECTS)))
        if fact.split() == split:
            break

    irrelevant: list[Fact] = []
    while len(irrelevant) < negatives:
        thing, aspect = _any_thing(rng), rng.choice(tuple(_ASPECTS))
        match len(irrelevant) % 4:
            case 0:
                thing = fact.thing
            case 1:
                aspect = fact.aspect
            case 2:
                thing = _similar_thing(fact.thing, thing, rng)
                aspect = fact.aspect

        candidate = Fact(thing, aspect)
        if candidate != fact and (split == "heldout" or candidate.split() == split):
            irrelevant.append(candidate)
    return fact, irrelevant


def _similar_thing(thing: Group, another: Group, rng: Random) -> Group:
    """A thing with the colour or the shape of the first, and the other property of the second."""
    if rng.random() < 0.5:
        return Group(1, thing.colour, another.shape)
    return Group(1, another.colour, thing.shape)


def _any_thing(rng: Random) -> Group:
    return Group(1, rng.choice(tuple(COLOURS)), rng.choice(SHAPES))
