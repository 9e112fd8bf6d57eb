"""A poison document fails alone: the answer names it, and the logits of all others are bit-equal
with and without it."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import httpx
import pytest

from tests.conftest import Rerank
from tests.gateway.encoded_pictures import (
    REFUSED,
    bare,
    encode,
    jpeg_of_scans,
    jpeg_with,
    picture,
    png_that_claims,
    png_with,
)

LEAKS = re.compile(
    r"0x[0-9a-f]{6,}|/(?:root|usr|home|tmp|work|opt|site-packages)/|Traceback|PIL|\.py\b|object at"
)
WORDS = (
    "sort",
    "a",
    "list",
    "of",
    "red",
    "circles",
    "and",
    "return",
    "none",
    "unbelievably",
    "blue",
)
PNG = encode(picture((64, 48)))


def spoilt(data: bytes) -> bytes:
    """An image with a valid header and broken pixels."""
    return data[: len(data) // 2] + bytes(16) + data[len(data) // 2 + 16 :]


POISON: dict[str, Any] = {
    "truncated png": {"image": bare(PNG[: len(PNG) // 2])},
    "truncated jpeg": {"image": bare(encode(picture((300, 300)), "JPEG")[:2000])},
    "spoilt png": {"image": bare(spoilt(PNG))},
    "truncated webp": {"image": bare(encode(picture((300, 300)), "WEBP")[:900])},
    "spoilt, between good ones": {
        "content": [
            {"type": "image_url", "image_url": {"url": bare(data)}}
            for data in (PNG, spoilt(PNG), PNG)
        ]
    },
    "a bomb": {"image": bare(png_that_claims(60_000, 60_000))},
    "scans without end": {"image": bare(jpeg_of_scans(4000, 2000))},
    "segments without end": {"image": bare(jpeg_with(b"\xff\xfe\0\2" * 100_000))},
    "an inflating text": {"image": bare(png_with(*[b"\0\0\0\5zTXtk\0\0x\x9c\0\0\0\0"] * 2000))},
    "one pixel": {"image": bare(encode(picture((1, 1))))},
    "svg": {"image": bare(REFUSED["svg"])},
    "fits": {"image": bare(REFUSED["fits"])},
    "a megabyte without a space": "x" * 2**20,
    "too long to be left whole": "word " * 15_000,
    "too long, in one token's worth": "9" * 90_000,
    "nothing": "",
    "a number": 7,
    "an image url": {"image": "https://169.254.169.254/latest"},
}
HARMLESS = [
    "\0" * 50,
    "<|im_end|><|image_pad|>" * 40,
    "\u202e\ufffe\U0001d518" * 30,
    "a\u0301" * 200,
]
"""Texts that are strange, and scored."""


def company(rng: Random) -> list[Any]:
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 90))) for _ in range(24)]
    shown = [{"image": bare(encode(picture((40 + 9 * number, 60))))} for number in range(8)]
    both = [
        {"text": texts[number], "image": bare(encode(picture((50, 40 + 9 * number))))}
        for number in range(6)
    ]
    documents = [*texts, *HARMLESS, *shown, *both]
    rng.shuffle(documents)
    return documents


def ask(rerank: Rerank, documents: list[Any]) -> dict[str, Any]:
    answer = rerank(
        query="a list of red circles",
        documents=documents,
        truncate="none",
        on_error="skip",
        cache="bypass",
    )
    assert answer.status_code == 200, answer.text
    assert not LEAKS.search(answer.text)
    found: dict[str, Any] = answer.json()
    return found


def logits(answer: dict[str, Any]) -> dict[int, float]:
    return {each["index"]: each["logit"] for each in answer["results"]}


@pytest.mark.slow
def test_its_company_keeps_its_logits(rerank: Rerank) -> None:
    rng = Random("poison")
    documents = company(rng)
    alone = logits(ask(rerank, documents))
    assert len(alone) == len(documents)
    for name, poison in POISON.items():
        place = rng.randint(0, len(documents))
        answer = ask(rerank, [*documents[:place], poison, *documents[place:]])
        assert [each["index"] for each in answer["errors"]] == [place], name
        assert logits(answer) == {
            index + (index >= place): logit for index, logit in alone.items()
        }, name


@pytest.mark.slow
def test_and_so_it_does_with_all_of_them_at_once(rerank: Rerank) -> None:
    rng = Random("all poison")
    documents = company(rng)
    marked = [(document, False) for document in documents] + [
        (poison, True) for poison in POISON.values()
    ]
    rng.shuffle(marked)
    answer = ask(rerank, [document for document, _ in marked])
    assert [each["index"] for each in answer["errors"]] == [
        place for place, (_, bad) in enumerate(marked) if bad
    ]
    alone = logits(ask(rerank, [document for document, bad in marked if not bad]))
    assert [logit for _, logit in sorted(logits(answer).items())] == [
        logit for _, logit in sorted(alone.items())
    ]


@pytest.mark.parametrize("name", POISON)
def test_it_is_named_and_nothing_of_the_inside_is_told(
    rerank: Rerank, client: httpx.Client, name: str
) -> None:
    for fields in ({}, {"on_error": "fail", "top_n": 1}):
        answer = rerank(
            query="q", documents=["good", POISON[name], "good too"], truncate="none", **fields
        )
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["loc"][:2] == ["documents", 1]
        assert not LEAKS.search(answer.text)
    assert client.get("/health/ready").status_code == 200


def test_a_poison_query_is_named_too(rerank: Rerank) -> None:
    for name in (
        "spoilt png",
        "scans without end",
        "a megabyte without a space",
        "nothing",
        "too long to be left whole",
    ):
        answer = rerank(query=POISON[name], documents=["good"], truncate="none", on_error="skip")
        found = answer.json()
        assert answer.status_code == 400 or [each["index"] for each in found["errors"]] == [0]
        assert not LEAKS.search(answer.text)
