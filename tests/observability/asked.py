"""The requests of the scene: every kind that a panel distinguishes, good and bad."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import httpx

from tests.gateway.encoded_pictures import bare, encode, picture

Body = dict[str, Any]
Asked = Callable[[httpx.Client, random.Random], httpx.Response]
_WORDS = (
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "islet",
    "jetty",
    "knoll",
    "lagoon",
)
_PICTURES = [bare(encode(picture((side, side)))) for side in (28, 56, 84)]

_LARGE_PICTURES = [bare(encode(picture((side, 200)))) for side in (160, 180, 200, 220)]
CASCADE = "cascade"
"""The cascade of the scene, which reduces images in its first stage."""


def _words(dice: random.Random, count: int) -> str:
    return " ".join(dice.choices(_WORDS, k=count))


def _rerank(documents: Callable[[random.Random], list[Any]], **more: Any) -> Asked:
    def ask(client: httpx.Client, dice: random.Random) -> httpx.Response:
        return client.post(
            "/rerank", json={"query": _words(dice, 4), "documents": documents(dice)} | more
        )

    return ask


def _texts(count: int, length: int = 12) -> Callable[[random.Random], list[Any]]:
    return lambda dice: [_words(dice, length) for _ in range(count)]


def _pictures(dice: random.Random) -> list[Any]:
    return [{"image": data} for data in dice.sample(_PICTURES, 2)]


def _large_pictures(dice: random.Random) -> list[Any]:
    return [{"image": data, "text": _words(dice, 2)} for data in _LARGE_PICTURES]


def _mixed(dice: random.Random) -> list[Any]:
    """A picture that was not sent before, so that pictures are decoded as long as the scene lasts,
    and a text."""
    new = picture((28 + dice.randrange(56), 28 + dice.randrange(56)))
    return [{"text": _words(dice, 5), "image": bare(encode(new))}, _words(dice, 9)]


def _repeated(client: httpx.Client, dice: random.Random) -> httpx.Response:
    """A request that was sent before, by any caller: its pairs are in the cache."""
    known = random.Random(dice.randrange(4))
    return client.post(
        "/rerank",
        json={"query": _words(known, 4), "documents": [_words(known, 12) for _ in range(8)]},
    )


def _not_json(client: httpx.Client, dice: random.Random) -> httpx.Response:
    return client.post("/rerank", content=b"{", headers={"content-type": "application/json"})


def _elsewhere(client: httpx.Client, dice: random.Random) -> httpx.Response:
    return client.get(f"/{_words(dice, 1)}")


def _without_key(client: httpx.Client, dice: random.Random) -> httpx.Response:
    return client.post(
        "/rerank",
        json={"query": "q", "documents": ["d"]},
        headers={"authorization": "Bearer wrong"},
    )


GOOD: tuple[Asked, ...] = (
    _repeated,
    _repeated,
    _repeated,
    _rerank(_texts(1)),
    _rerank(_texts(6)),
    _rerank(_texts(6, 30)),
    _rerank(_texts(24)),
    _rerank(_pictures),
    _rerank(_mixed),
    _rerank(_large_pictures, model=CASCADE),
)
ODD: tuple[Asked, ...] = (
    _rerank(_texts(120, 4)),
    _rerank(_texts(1, 9_000)),  # beyond what a pair may have: cut
    _rerank(_texts(1, 9_000), truncate="none", on_error="skip"),
    _rerank(lambda dice: [*_texts(2)(dice), {"image": "AAAA"}], on_error="skip"),
    _rerank(lambda _: [{"image": "AAAA"}]),
    _rerank(_texts(2), model="another"),
    _rerank(_texts(40, 40), timeout_ms=1),
    _not_json,
    _elsewhere,
    _without_key,
)
