"""Small training data that a machine can draw: made-up words for colours, asked for among pictures
and sentences.

gmr-tiny knows colours and has never seen the words, so whatever is learnt is learnt here.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

WORDS = {"zorp": "red", "blick": "blue", "fendle": "green", "quarm": "yellow"}
SIDE = 112


def write_colours(
    folder: Path,
    name: str = "train.jsonl",
    *,
    rows: int = 8,
    negatives: int = 3,
    texts: bool = True,
    asks: str = "which is",
) -> Path:
    """`rows` examples: half ask for a picture, and, with `texts`, half for a sentence; some show a
    picture themselves.

    Files that ask in other words hold other rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for colour in WORDS.values():
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        ImageDraw.Draw(picture).rectangle((14, 14, 98, 98), fill=colour)
        picture.save(folder / f"{colour}.png")
    lines = [json.dumps(row(number, negatives, texts=texts, asks=asks)) for number in range(rows)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(number: int, negatives: int, *, texts: bool, asks: str) -> dict[str, object]:
    words = list(WORDS)
    word = words[number % len(words)]
    others = [WORDS[words[(number + 1 + step) % len(words)]] for step in range(len(words) - 1)]
    as_text = texts and number % 2 == 1

    def side(colour: str, copy: int) -> dict[str, str]:
        return (
            {"text": f"This one is {colour}{', indeed' * copy}."}
            if as_text
            else {"image": f"{colour}.png"}
        )

    query: dict[str, str] = {"text": f"{asks} {word}?"}
    if number % 5 == 4:
        query["image"] = f"{WORDS[word]}.png"
    wrong = [side(others[at % len(others)], at // len(others)) for at in range(negatives)]
    kinds = [{"kind": "random" if at % 2 else "hard"} for at in range(negatives)]
    return {
        "id": f"q{number}",
        "query": query,
        "positives": [side(WORDS[word], 0)],
        "negatives": [one | kind for one, kind in zip(wrong, kinds, strict=True)],
        "instruction": "Find what has this colour.",
    }
