"""Rendered pages and questions about them: the cell T-VD.

Does not depend on models. Headlines come from a closed list: a network as small as gmr-tiny learns
to recognise printed words, not to spell them. Invariant: no irrelevant page has the headline of the
query; half of them share one of its words.
"""

from __future__ import annotations

from random import Random

from PIL import Image

from model_store.synthetic.drawing import FIGURES, Page, draw_page
from model_store.synthetic.examples import Side, split_of
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
    """A random page, of the given split if there is one."""
    while True:
        first, second = rng.sample(HEADLINES, 2)
        if split is None or split_of((first, second)) == split:
            return Page((first, second), rng.choice(FIGURES), rng.randint(1980, 2029))


def page_picture(page: Page, rng: Random) -> Image.Image:
    """A rendering of a page, with the words that are true of it."""
    image = draw_page(page, rng)
    image.info["words"] = frozenset((*page.headline, *page.figure.split()))
    return image


def text_to_page(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """A question about a headline, with pages as documents (T-VD)."""
    page = any_page(rng, split)
    irrelevant = _irrelevant_pages(page, rng, split, negatives)

    first, second = page.headline
    question = rng.choice(_QUESTIONS).format(
        first=first, second=second, First=first.capitalize(), figure=page.figure
    )
    return (question,), [(page_picture(shown, rng),) for shown in (page, *irrelevant)]


def _irrelevant_pages(page: Page, rng: Random, split: Split, count: int) -> list[Page]:
    """Pages with another headline; the first half shares one word with it.

    In training, none of them is held out.
    """
    found: list[Page] = []
    while len(found) < count:
        candidate = any_page(rng)
        if len(found) < count // 2:
            words = list(page.headline)
            words[rng.randrange(2)] = candidate.headline[0]
            figure = rng.choice((page.figure, candidate.figure))
            candidate = Page((words[0], words[1]), figure, candidate.year)

        held_out = split == "train" and split_of(candidate.headline) != split
        if not held_out and set(candidate.headline) != set(page.headline):
            found.append(candidate)
    return found
