"""Pictures of coloured shapes and texts about them: the cells T-I, I-T, I-I and IT-I.

Does not depend on models. Invariant: no irrelevant document satisfies its query; half of them
differ from the relevant one in a single property.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from model_store.synthetic.drawing import COLOURS, SHAPES, Group, Scene, draw_scene
from model_store.synthetic.examples import Sampler, Side, split_of
from model_store.synthetic.texts import Split

NUMBERS = {1: ("a", "one", "1"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
_PHRASES = (
    "{}",
    "{}",
    "{}",
    "a picture of {}",
    "an image showing {}",
    "{} in a picture",
    "there are {}",
    "show me {}",
    "the {}",
)


def picture(scene: Scene, rng: Random) -> Image.Image:
    """A drawing of a scene, with the words that are true of it."""
    image = draw_scene(scene, rng)
    words: set[str] = set()
    for group in scene.groups:
        noun = plural(group.shape) if group.count > 1 else group.shape
        words |= {group.colour, noun, *NUMBERS[group.count]}
    image.info["words"] = frozenset(words)
    return image


def caption(scene: Scene, rng: Random) -> str:
    """A sentence or phrase that describes all of a scene."""
    groups = list(scene.groups)
    rng.shuffle(groups)
    conjunction = rng.choice((" and ", ", ", " next to ", " with "))
    nouns = [_noun_phrase(group.count, group.colour, group.shape, rng) for group in groups]
    return _sentence(conjunction.join(nouns), rng)


@dataclass(frozen=True, slots=True)
class Want:
    """The picture that a text asks for: count, colour and shape of each group, None where any
    will do."""

    groups: tuple[tuple[int | None, str | None, str | None], ...]

    @classmethod
    def of(cls, scene: Scene, rng: Random) -> Want:
        """All of a scene, or some properties of one of its groups."""
        groups = tuple((group.count, group.colour, group.shape) for group in scene.groups)
        if rng.random() < 0.6:
            return cls(groups)

        count, colour, shape = rng.choice(groups)
        partial = (
            (None, colour, shape),
            (None, colour, shape),
            (None, colour, None),
            (None, None, shape),
            (count, None, shape),
        )
        return cls((rng.choice(partial),))

    def met_by(self, scene: Scene) -> bool:
        """True if each wanted group is in a scene."""
        return all(_fits_any(wanted, scene.groups) for wanted in self.groups)

    def text(self, rng: Random) -> str:
        """A sentence or phrase that asks for it."""
        return _sentence(" and ".join(_noun_phrase(*group, rng) for group in self.groups), rng)


def any_scene(rng: Random, split: Split | None = None) -> Scene:
    """A random scene of one or two groups, of the given split if there is one."""
    while True:
        scene = Scene((any_group(rng),))
        if rng.random() < 0.4:
            first, second = any_group(rng, 3), any_group(rng, 3)
            if (first.colour, first.shape) == (second.colour, second.shape):
                continue
            scene = Scene((first, second))

        if split is None or split_of(sorted(scene.groups)) == split:
            return scene


def any_group(rng: Random, largest: int = 4) -> Group:
    """One to `largest` equal shapes."""
    return Group(rng.randint(1, largest), rng.choice(tuple(COLOURS)), rng.choice(SHAPES))


def captions(
    query_of: Callable[[Want, Random], Side], document_of: Callable[[Scene, Random], Side]
) -> Sampler:
    """A query that asks for a scene, with scenes as documents."""

    def sampler(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
        scene = any_scene(rng, split)
        want = Want.of(scene, rng)
        query = query_of(want, rng)

        irrelevant = _irrelevant_scenes(rng, split, scene, negatives, want.met_by)
        return query, [document_of(shown, rng) for shown in (scene, *irrelevant)]

    return sampler


def same_scene(document_of: Callable[[Scene, Random], Side]) -> Sampler:
    """A picture as query, with scenes as documents; the relevant one is the same scene, drawn or
    described anew."""

    def sampler(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
        scene = any_scene(rng, split)

        def is_same(candidate: Scene) -> bool:
            return sorted(candidate.groups) == sorted(scene.groups)

        irrelevant = _irrelevant_scenes(rng, split, scene, negatives, is_same)
        query = picture(scene, rng)
        return (query,), [document_of(shown, rng) for shown in (scene, *irrelevant)]

    return sampler


def modified(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """A picture and a change of it, with pictures as documents (IT-I).

    The change is of the colour, the shape or the number.
    """
    while True:
        seen = any_group(rng)
        (wanted,) = _near_miss(Scene((seen,)), rng).groups
        if split_of((seen, wanted)) == split:
            break
    change = _change(seen, wanted, rng)

    shown, target = Scene((seen,)), Scene((wanted,))
    irrelevant = [
        shown,
        *_irrelevant_scenes(
            rng, split, target, negatives - 1, lambda candidate: candidate in (target, shown)
        ),
    ]
    query = picture(shown, rng)
    documents: list[Side] = [(picture(scene, rng),) for scene in (target, *irrelevant)]
    return (query, change), documents


def _change(seen: Group, wanted: Group, rng: Random) -> str:
    """A text for the one property in which two groups differ."""
    if wanted.colour != seen.colour:
        forms = ("the same in {}", "but {}", "make it {}", "{} instead of {}")
        return rng.choice(forms).format(wanted.colour, seen.colour)

    if wanted.shape != seen.shape:
        noun = _noun_phrase(wanted.count, None, wanted.shape, rng)
        forms = ("the same but {}", "{} of this colour", "{} instead", "make it {}")
        return rng.choice(forms).format(noun)

    number = rng.choice(NUMBERS[wanted.count][-2:])
    return rng.choice(("the same but {}", "{} of them", "{} instead", "make it {}")).format(number)


def _irrelevant_scenes(
    rng: Random, split: Split, scene: Scene, count: int, is_relevant: Callable[[Scene], bool]
) -> list[Scene]:
    """Different scenes that are not relevant, half of them near misses of `scene` as far as there
    are any.

    In training, none of them is held out.
    """
    found: list[Scene] = []
    tries = 0
    while len(found) < count:
        tries += 1
        wants_near_miss = len(found) < count // 2 and tries < 8 * count
        candidate = _near_miss(scene, rng) if wants_near_miss else any_scene(rng)

        held_out = split == "train" and split_of(sorted(candidate.groups)) != split
        if not held_out and not is_relevant(candidate) and candidate not in found:
            found.append(candidate)
    return found


def _near_miss(scene: Scene, rng: Random) -> Scene:
    """A scene that differs in one property of one group."""
    groups = list(scene.groups)
    index = rng.randrange(len(groups))
    count, colour, shape = groups[index].count, groups[index].colour, groups[index].shape

    match rng.randrange(3):
        case 0:
            largest = 4 if len(groups) == 1 else 3
            count = rng.choice([number for number in range(1, largest + 1) if number != count])
        case 1:
            colour = rng.choice([name for name in COLOURS if name != colour])
        case _:
            shape = rng.choice([name for name in SHAPES if name != shape])

    groups[index] = Group(count, colour, shape)
    return Scene(tuple(groups))


def _fits_any(wanted: tuple[int | None, str | None, str | None], groups: tuple[Group, ...]) -> bool:
    return any(_fits(wanted, group) for group in groups)


def _fits(wanted: tuple[int | None, str | None, str | None], group: Group) -> bool:
    count, colour, shape = wanted
    return (
        count in (None, group.count)
        and colour in (None, group.colour)
        and shape in (None, group.shape)
    )


def _sentence(text: str, rng: Random) -> str:
    """A noun phrase inside a longer phrase, or as a sentence."""
    phrase = rng.choice(_PHRASES).format(text)
    if rng.random() < 0.4:
        return phrase.capitalize() + rng.choice((".", ""))
    return phrase


def _noun_phrase(count: int | None, colour: str | None, shape: str | None, rng: Random) -> str:
    """A phrase such as "two red circles"; a property that is None is left open."""
    noun = shape or rng.choice(("thing", "shape", "object"))
    several = rng.random() < 0.5 if count is None else count > 1

    number = ""
    if count:
        number = rng.choice(NUMBERS[count])
    elif not several:
        number = rng.choice(("", "a"))

    words = (number, colour, plural(noun) if several else noun)
    phrase = " ".join(word for word in words if word)
    return re.sub(r"\ba (?=[aeiou])", "an ", phrase)


def plural(noun: str) -> str:
    """The plural of a shape's name."""
    return noun + ("es" if noun.endswith("ss") else "s")
