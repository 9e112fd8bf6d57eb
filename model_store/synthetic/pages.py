"""Rendered pages and questions about them: the cell T-VD.

Knows headlines and figures, nothing of models. Headlines come from a closed list: a network this
small learns to recognise printed words, not to spell them. Invariant: no irrelevant page has the
headline that was asked for; half of them share one of its words.
"""

from __future__ import annotations

from random import Random

from PIL import Image

from model_store.synthetic.drawing import FIGURES, Page, draw_page
from model_store.synthetic.examples import Side, part_of
from model_store.synthetic.texts import Split

HEADLINES = (
    "accident", "animals", "balance", "bridges", "building", "cameras", "castles", "children",
    "climate", "computers", "cotton", "customs", "doctors", "economy", "elections", "engines",
    "factory", "fashion", "finance", "flights", "forests", "garden", "gold", "health", "holidays",
    "hospital", "hunting", "insects", "islands", "justice", "labour", "lasers", "letters",
    "machines", "medicine", "metals", "money", "museums", "nature", "nuclear", "ocean",
    "orchestra", "painting", "parks", "physics", "plastic", "police", "ports", "prisons",
    "quality", "rainfall", "rivers", "safety", "salaries", "science", "shipping", "sports",
    "storms", "sugar", "taxes", "theatre", "traffic", "travel", "vegetables", "volcano", "weather",
    "winter", "wool",
)  # fmt: skip


_QUESTIONS = (
    "{first} {second}", "{first} and {second}", "report about {first} and {second}",
    "What do we know about {first} {second}?", "{second} {first}",
    "page on {first} {second} with a {figure}", "{first} {second} {figure}", "{First} {second}",
    "{figure} of {first} and {second}",
)  # fmt: skip


def any_page(rng: Random, split: Split | None = None) -> Page:
    """A page; of the given part, if one is given."""
    while True:
        first, second = rng.sample(HEADLINES, 2)
        if split is None or part_of((first, second)) == split:
            return Page((first, second), rng.choice(FIGURES), rng.randint(1980, 2029))


def sheet(page: Page, rng: Random) -> Image.Image:
    """A rendering of a page that carries the words true of it."""
    image = draw_page(page, rng)
    image.info["words"] = frozenset((*page.headline, *page.figure.split()))
    return image


def text_to_page(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """A question about a headline, against pages (T-VD)."""
    page = any_page(rng, split)
    others: list[Page] = []
    while len(others) < negatives:
        other = any_page(rng)
        if len(others) < negatives // 2:
            words = list(page.headline)
            words[rng.randrange(2)] = other.headline[0]
            other = Page((words[0], words[1]), rng.choice((page.figure, other.figure)), other.year)
        hidden = split == "train" and part_of(other.headline) != split
        if not hidden and set(other.headline) != set(page.headline):
            others.append(other)
    first, second = page.headline
    asked = rng.choice(_QUESTIONS).format(
        first=first, second=second, First=first.capitalize(), figure=page.figure
    )
    return (asked,), [(sheet(each, rng),) for each in (page, *others)]
