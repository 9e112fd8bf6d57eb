"""The README's requests are answered as printed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sh\n(curl .*?)```\s*```json\n(.*?)```", README, re.DOTALL)
PRINTED_ADDRESS = "http://127.0.0.1:8000"


def assert_as_printed(answered: Any, printed: Any, path: str = "answer") -> None:
    """Equal, but for scores in the last digits and for ids, which are printed as `rr-...`."""
    if isinstance(printed, dict):
        assert list(answered) == list(printed), path
        for name in printed:
            assert_as_printed(answered[name], printed[name], f"{path}.{name}")
    elif isinstance(printed, list):
        assert len(answered) == len(printed), path
        for index, (one, other) in enumerate(zip(answered, printed, strict=True)):
            assert_as_printed(one, other, f"{path}[{index}]")
    elif isinstance(printed, float):
        assert answered == pytest.approx(printed, abs=2e-3), path
    elif isinstance(printed, str) and printed.endswith("..."):
        assert answered.startswith(printed[:-3]), path
    else:
        assert answered == printed, path


def ask(command: str, server: str) -> Any:
    done = subprocess.run(
        ["bash", "-c", command.replace(PRINTED_ADDRESS, server)],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_there_is_an_example_for_text_images_and_both() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("example", EXAMPLES, ids=["text", "images", "both"])
def test_an_example_answers_as_printed(example: tuple[str, str], server: str) -> None:
    command, printed = example
    assert_as_printed(
        ask(command.replace('"query"', '"cache": "refresh", "query"', 1), server),
        json.loads(printed),
    )


def test_what_a_newcomer_types_ranks_the_document_with_those_words_first(rerank: Any) -> None:
    documents = [
        "The train to the coast leaves at seven in the morning.",
        "Bread is baked from flour, water, salt and yeast.",
        "Our office is closed on Monday because of the holiday.",
        "The quick brown fox jumps over the lazy dog.",
        "Invoices must be paid within thirty days.",
    ]
    for query, best in {
        "when does the train leave": 0,
        "flour and yeast": 1,
        "is the office closed on Monday?": 2,
        "lazy dog": 3,
        "How many days to pay invoices": 4,
    }.items():
        answer = rerank(query=query, documents=documents).json()
        assert answer["results"][0]["index"] == best, query
