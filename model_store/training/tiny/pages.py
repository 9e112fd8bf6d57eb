"""Rendered pages and questions about them: the cell T-VD.

Knows headlines and figures, nothing of models. Headlines come from a closed list: a network this small learns to recognise
printed words, not to spell them. Invariant: no irrelevant page has the headline that was asked for; half of them share one of
its words.
"""

from __future__ import annotations

from random import Random

from PIL import Image

from model_store.training.tiny.drawing import FIGURES, Page, draw_page
from model_store.training.tiny.examples import Side, part_of
from model_store.training.tiny.texts import Split

HEADLINES = (
    "accident", "airport", "animals", "autumn", "balance", "banking", "bridges", "budget", "building", "business", "cameras",
    "carbon", "castles", "chemistry", "children", "cinema", "climate", "coffee", "computers", "cooking", "cotton", "culture",
    "customs", "deserts", "doctors", "dragons", "economy", "education", "elections", "energy", "engines", "exports", "factory",
    "farming", "fashion", "festival", "finance", "fishing", "flights", "flowers", "forests", "fruit", "garden", "glass", "gold",
    "harbour", "health", "history", "holidays", "horses", "hospital", "housing", "hunting", "industry", "insects", "insurance",
    "islands", "jewels", "justice", "kitchen", "labour", "language", "lasers", "leather", "letters", "libraries", "machines",
    "markets", "medicine", "memory", "metals", "mining", "money", "mountains", "museums", "music", "nature", "network", "nuclear",
    "numbers", "ocean", "oil", "orchestra", "oxygen", "painting", "paper", "parks", "patents", "physics", "planets", "plastic",
    "poetry", "police", "politics", "ports", "prices", "prisons", "profit", "quality", "railway", "rainfall", "research",
    "rivers", "robots", "safety", "sailing", "salaries", "schools", "science", "security", "shipping", "silver", "sports",
    "steel", "storms", "students", "sugar", "summer", "taxes", "teachers", "theatre", "tourism", "traffic", "trains", "travel",
    "vaccines", "vegetables", "villages", "volcano", "water", "weather", "wheat", "winter", "wood", "wool",
)  # fmt: skip


_QUESTIONS = (
    "{first} {second}", "{first} and {second}", "report about {first} and {second}", "What do we know about {first} {second}?",
    "{second} {first}", "page on {first} {second} with a {figure}", "{first} {second} {figure}", "{First} {second}",
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
        if set(other.headline) != set(page.headline):
            others.append(other)
    first, second = page.headline
    asked = rng.choice(_QUESTIONS).format(first=first, second=second, First=first.capitalize(), figure=page.figure)
    return (asked,), [(sheet(each, rng),) for each in (page, *others)]
