"""The tutorial of examples/rag: its commands print what its page says, and its corpus can be made
again and replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

ROOT = Path(__file__).parents[2]
RAG = ROOT / "examples" / "rag"
PAGE = (RAG / "README.md").read_text(encoding="utf-8")
PRINTED = re.findall(r"```sh\n([^`]*)\n```\s*```text\n([^`]*)```", PAGE)
ROUND = 0.02
"""nDCG of a question or two with a near tie, at another number of threads."""


def run(command: str, server: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command as the page has it, by this environment's programs."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=os.environ | {"PATH": path, "RERANK_URL": server},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def cells(text: str) -> list[str | float]:
    """The words of a text, figures as numbers."""
    words = text.split()
    return [float(word) if re.fullmatch(r"\d\.\d{3}", word) else word for word in words]


def test_the_page_prints_two_outputs() -> None:
    assert [command.partition(" ")[0] for command, _ in PRINTED] == ["python", "python"]


@pytest.mark.parametrize("printed", PRINTED, ids=["ask", "measure"])
def test_a_command_prints_what_the_page_says(printed: tuple[str, str], server: str) -> None:
    command, text = printed
    done = run(command, server)
    assert done.returncode == 0, done.stderr
    ours, pages = cells(done.stdout), cells(text)
    assert [each for each in ours if isinstance(each, str)] == [
        each for each in pages if isinstance(each, str)
    ]
    assert [each for each in ours if isinstance(each, float)] == pytest.approx(
        [each for each in pages if isinstance(each, float)], abs=ROUND
    )


def test_commands_of_the_terminal_rank_the_corpus(server: str) -> None:
    (block,) = re.findall(r"```sh\n(gmr rerank [^`]*)```", PAGE)
    best = []
    for command in block.strip().splitlines():
        done = run(command, server)
        assert done.returncode == 0, done.stderr
        best.append(done.stdout.splitlines()[0].split("\t")[2])
    assert best == ["examples/rag/corpus/pictures/drawing-06.png", "label-black-diamond-price"]


def test_the_five_lines_are_the_scripts() -> None:
    (block,) = re.findall(r"```python\n([^`]*)```", PAGE)
    script = (RAG / "search.py").read_text(encoding="utf-8")
    indented = "".join(f"    {line}\n" for line in block.splitlines())
    assert indented in script


def test_without_a_service_there_is_a_sentence() -> None:
    done = run("python examples/rag/search.py question", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == "Nothing answers at http://127.0.0.1:1: start `gmr serve` first.\n"


def test_the_corpus_can_be_replaced(server: str, tmp_path: Path) -> None:
    shutil.copytree(RAG, tmp_path / "rag")
    corpus = tmp_path / "rag" / "corpus"
    documents = [{"id": "a", "text": "Close the file."}, {"id": "b", "text": "Sort the list."}]
    question = {"query": "sort a list", "relevant": ["b"], "kind": "mine"}
    (corpus / "pages.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    (corpus / "page-questions.jsonl").write_text(json.dumps(question), encoding="utf-8")
    for name in ("exhibits.jsonl", "exhibit-questions.jsonl"):
        (corpus / name).write_text("", encoding="utf-8")

    done = run("python rag/search.py", server, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["mine", "1", "1.000", "1.000"]


def test_the_exhibits_are_the_generators(tmp_path: Path) -> None:
    shutil.copytree(RAG, tmp_path / "rag", ignore=shutil.ignore_patterns("exhibit*", "pictures"))
    done = run("python rag/make_corpus.py", "", tmp_path)
    assert done.returncode == 0, done.stderr

    made, kept = tmp_path / "rag" / "corpus", RAG / "corpus"
    for name in ("exhibits.jsonl", "exhibit-questions.jsonl"):
        assert (made / name).read_text() == (kept / name).read_text()
    names = sorted(path.name for path in (kept / "pictures").iterdir())
    assert sorted(path.name for path in (made / "pictures").iterdir()) == names
    for name in names:
        with (
            Image.open(made / "pictures" / name) as one,
            Image.open(kept / "pictures" / name) as other,
        ):
            assert ImageChops.difference(one, other).getbbox() is None, name


def test_what_it_needs_is_pinned() -> None:
    needs = re.findall(r"^pip install ([\w ]+)$", PAGE, re.MULTILINE)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert needs
    for name in needs[0].split():
        assert f"\n{name}==" in pinned
