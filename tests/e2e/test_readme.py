"""The README's requests are answered as printed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.recipes.mini.texts.measures import everyday_questions
from tests.conftest import CALM, free_port, running

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sh\n(curl .*?)```\s*```json\n(.*?)```", README, re.DOTALL)
PRINTED_ADDRESS = "http://127.0.0.1:8000"
MODEL = "gmr-mini"
QUESTIONS = re.findall(r"^\| (.+?) \| (.+?) \| (yes|no) \|$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the service with the checkpoint that `make serve` starts."""
    log = tmp_path_factory.mktemp("readme") / "log"
    with running("serve", "--model", MODEL, port=free_port(), log=log, **CALM) as url:
        yield url


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
def test_an_example_answers_as_printed(example: tuple[str, str], served: str) -> None:
    command, printed = example
    assert_as_printed(
        ask(command.replace('"query"', '"cache": "refresh", "query"', 1), served),
        json.loads(printed),
    )


def test_make_serve_starts_the_model_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"RERANK_MODEL ?= {MODEL}" in makefile


def test_everyday_questions_have_the_answers_that_the_readme_prints(served: str) -> None:
    groups = everyday_questions()
    assert [question for question, _, _ in QUESTIONS] == [group.query for group in groups]
    sensible = 0
    for group, (_, printed, verdict) in zip(groups, QUESTIONS, strict=True):
        body = {"query": group.query, "documents": list(group.documents), "top_n": 1}
        answer = httpx.post(f"{served}/rerank", json=body, timeout=60).json()
        first = answer["results"][0]["index"]
        assert group.documents[first] == printed
        assert (first == 0) == (verdict == "yes")
        sensible += first == 0
    assert sensible >= 7


def test_what_a_newcomer_types_ranks_the_document_with_those_words_first(served: str) -> None:
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
        body = {"query": query, "documents": documents}
        answer = httpx.post(f"{served}/rerank", json=body, timeout=60).json()
        assert answer["results"][0]["index"] == best, query
