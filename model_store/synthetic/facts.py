"""Questions about things that a picture or a text names: the cells T-IT, IT-T and IT-IT, and a part
of T-T.

Knows things, aspects and values, nothing of models. Invariant: only one document is about both the
thing and the aspect that were asked for; the others share the thing, the aspect, or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from model_store.synthetic.drawing import COLOURS, SHAPES, Group, Scene
from model_store.synthetic.examples import Sampler, Side, part_of
from model_store.synthetic.lexical import content_terms
from model_store.synthetic.scenes import picture
from model_store.synthetic.texts import Split

# Of each aspect: how it is asked for, how it is told, and a value that nobody needs to guess.
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


ASPECT_WORDS = tuple(
    frozenset(word for form in (*asks, *tells) for word in content_terms(form))
    for asks, tells, _ in _ASPECTS.values()
)
"""The words that tell one aspect from another, a set for each."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One aspect of one thing."""

    thing: Group
    aspect: str

    def part(self) -> Split:
        return part_of((self.thing.colour, self.thing.shape, self.aspect))

    def ask(self, rng: Random, *, named: bool) -> str:
        """A question; the thing is named, or only pointed at."""
        return rng.choice(_ASPECTS[self.aspect][0]).format(self._name(rng, named))

    def tell(self, rng: Random, *, named: bool) -> str:
        """An answer, with some value."""
        _, forms, value = _ASPECTS[self.aspect]
        told = rng.choice(forms).format(self._name(rng, named), value(rng))
        return told[0].upper() + told[1:]

    def picture(self, rng: Random) -> Image.Image:
        return picture(Scene((self.thing,)), rng)

    def _name(self, rng: Random, named: bool) -> str:
        return (
            f"the {self.thing.colour} {self.thing.shape}"
            if named
            else rng.choice(("it", "this", "this thing", "the thing"))
        )


def facts(ask: Callable[[Fact, Random], Side], tell: Callable[[Fact, Random], Side]) -> Sampler:
    """A question about a fact, against documents that tell facts."""

    def sampler(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
        fact, others = _sample(rng, split, negatives)
        return ask(fact, rng), [tell(each, rng) for each in (fact, *others)]

    return sampler


def _sample(rng: Random, split: Split, negatives: int) -> tuple[Fact, list[Fact]]:
    """A fact of the given part, and others: the same thing, the same aspect, the same aspect of a
    near thing, or any.

    In training none of the others is held out either.
    """
    while True:
        fact = Fact(_thing(rng), rng.choice(tuple(_ASPECTS)))
        if fact.part() == split:
            break
    others: list[Fact] = []
    while len(others) < negatives:
        thing, aspect = _thing(rng), rng.choice(tuple(_ASPECTS))
        match len(others) % 4:
            case 0:
                thing = fact.thing
            case 1:
                aspect = fact.aspect
            case 2:
                colour_kept = rng.random() < 0.5
                thing = Group(
                    1,
                    fact.thing.colour if colour_kept else thing.colour,
                    thing.shape if colour_kept else fact.thing.shape,
                )
                aspect = fact.aspect
        other = Fact(thing, aspect)
        if other != fact and (split == "heldout" or other.part() == split):
            others.append(other)
    return fact, others


def _thing(rng: Random) -> Group:
    return Group(1, rng.choice(tuple(COLOURS)), rng.choice(SHAPES))
