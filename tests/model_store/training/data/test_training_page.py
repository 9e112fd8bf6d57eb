"""docs/training.md and docs/training-rows.md: every command is run as printed, every row is read,
and every message is what is said."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.families.images import MAX_ASPECT, MAX_FILE_BYTES, MAX_PIXELS
from model_store.lines import MAX_LINE_BYTES
from model_store.manifest import manifest_digest
from model_store.recipes.tiny.sample import draw as draw_sample
from model_store.training.data import rows as data
from model_store.training.data.corpus import parse_document
from model_store.training.data.mixture import modalities_of
from model_store.training.data.rows import read_examples
from model_store.training.data.validation import MIN_SIDE, SHOWN, check
from model_store.training.sample import write_sample
from service.cli.main import app
from tests.model_store.training.rows import draw, write_rows

ROOT = Path(__file__).parents[4]
GUIDE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/training-rows.md").read_text(encoding="utf-8")

SHORTER = {
    "gmr train tiny": "--set steps=2 --set batch.examples=2 --set data.negatives=2",
}
"""What makes a command quick enough for a test; what it does is the same."""


def commands_of(text: str) -> list[list[str]]:
    """The words of each command of the `sh` blocks."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words for words in commands if words]


def rows_of(mark: str) -> Iterator[bytes]:
    for block in re.findall(rf"```{mark}\n(.*?)```", PAGE, re.DOTALL):
        yield from block.encode().splitlines()


def public_data(folder: Path) -> None:
    """Small files of the names that the page's conversions read."""
    (folder / "collection.tsv").write_text("1\tone\n2\ttwo\n")
    (folder / "queries.train.tsv").write_text("q1\tfirst\n")
    (folder / "qrels.train.tsv").write_text("q1 0 1 1\n")
    write_rows(folder / "corpus.jsonl", [{"_id": "1", "title": "", "text": "one"}])
    write_rows(folder / "queries.jsonl", [{"_id": "q1", "text": "first"}])
    (folder / "qrels").mkdir()
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t2\n")
    draw(folder / "M-BEIR/images/a.png", "red")
    pool: list[dict[str, Any]] = [
        {"did": "2:0", "txt": "A passage.", "img_path": None, "modality": "text"},
        {"did": "2:1", "txt": "An image.", "img_path": "images/a.png", "modality": "image,text"},
    ]
    write_rows(folder / "M-BEIR/webqa_pool.jsonl", pool)
    query = {
        "query_txt": "q",
        "query_img_path": None,
        "query_modality": "text",
        "neg_cand_list": [],
    }
    queries = [
        {"qid": f"2:{10 + n}", **query, "pos_cand_list": [f"2:{n}"], "task_id": n + 1}
        for n in range(2)
    ]
    write_rows(folder / "M-BEIR/webqa_train.jsonl", queries)
    page = base64.b64encode((folder / "M-BEIR/images/a.png").read_bytes()).decode()
    write_rows(folder / "vidore-pages/train.jsonl", [{"query": "q", "image": page}])
    write_rows(folder / "flag.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"]}])
    draw(folder / "media/b.png", "blue")
    message = [{"role": "user", "content": "<image>q"}]
    answer = [[{"role": "assistant", "content": "p"}]]
    write_rows(
        folder / "swift.jsonl",
        [{"messages": message, "images": ["b.png"], "positive_messages": answer}],
    )


def run(words: list[str], environment: dict[str, str], digest: str) -> str:
    """Run one command of the page; gives what it prints."""
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        environment[name] = value
        return ""
    assert words[0] == "gmr"

    shorter = next(
        (more for start, more in SHORTER.items() if " ".join(words).startswith(start)), ""
    )
    arguments = [digest if re.fullmatch(r"[0-9a-f]{8}", word) else word for word in words[1:]]
    done = CliRunner().invoke(app, [*arguments, *shorter.split()], env=environment)

    assert done.exit_code == 0, (words, done.stderr[-2000:], done.exception)
    return done.stdout


CLICKS_CHECKED = ["gmr", "data", "check", "rows/clicked.jsonl"]


def rows_of_clicks() -> None:
    """Run the guide's program over a log of two searches, one of them without a click."""
    searches = [
        {
            "query": "orange ring",
            "shown": ["a square", "a ring", "an orange", "a hat"],
            "clicked": [2, 1],
        },
        {"query": "nothing", "shown": ["a", "b"], "clicked": []},
    ]
    write_rows(Path("clicks.jsonl"), searches)
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(program, "docs/training.md", "exec"), {})
    (row,) = read_examples(Path("rows/clicked.jsonl"))
    assert [side.text for side in row.positives] == ["a ring", "an orange"]
    assert [negative.side.text for negative in row.negatives] == ["a square"]


@pytest.mark.slow
def test_every_command_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    public_data(tmp_path)
    environment: dict[str, str] = {}
    digest, printed = "", {}
    for words in commands_of(GUIDE + PAGE):
        if words == CLICKS_CHECKED:
            rows_of_clicks()
        output = run(words, environment, digest)
        printed[" ".join(words)] = output
        found = re.search(r"@sha256:([0-9a-f]{8})", output)
        if found:
            digest = found[1]

    served = resolve("my-gmr@production", registry="registry", cache=tmp_path / "cache")

    assert manifest_digest(served.folder).startswith(digest)
    assert "24 rows, 48 documents and 45 images" in printed["gmr data sample rows"]
    assert "<figure" in Path("report.html").read_text(encoding="utf-8")
    assert "Tokens of a pair" in Path("report.md").read_text(encoding="utf-8")
    assert "ended" in json.loads(Path("runs/tiny/manifest.json").read_text(encoding="utf-8"))

    train, dev = (list(read_examples(Path(f"data/{name}.jsonl"))) for name in ("train", "dev"))

    assert len(train) + len(dev) == 24

    positives = list(chain.from_iterable(example.positives for example in train))
    negatives = list(chain.from_iterable(example.negatives for example in train))

    assert any(side.image for side in positives)
    assert {negative.kind for negative in negatives} == {"hard", "random"}

    mixed = list(read_examples(Path("mixture.jsonl")))

    assert sorted(example.id for example in mixed) == ["T-IT/WebQA/2:11", "T-T/WebQA/2:10"]
    assert {modalities_of(example) for example in mixed} == {
        ("text", "text"),
        ("text", "image,text"),
    }


def test_the_pages_rows_are_read(tmp_path: Path) -> None:
    write_sample(tmp_path / "rows")
    path = tmp_path / "rows/page.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in rows_of("json")))

    assert len(list(read_examples(path))) == 3
    assert not check(path, decode=True).wrong

    (document,) = rows_of("json corpus")

    assert parse_document(document, path, 1).id == "d09-0"


MESSAGES = re.findall(
    r"^\| `(.*)` \| (.*\.|.*\?) \|$",
    PAGE.split("what is said |")[1].split("\n## ")[0],
    re.MULTILINE,
)


def test_there_is_a_message_for_each_kind_of_mistake() -> None:
    assert len(MESSAGES) == 12


@pytest.mark.parametrize(("row", "message"), MESSAGES, ids=[message for _, message in MESSAGES])
def test_a_message_is_what_is_said(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row + "\n", encoding="utf-8")
    assert check(path).problems == [f"{path}:1: {message}"]


def test_the_pages_bounds_are_the_codes() -> None:
    for number in (
        data.MAX_SIDES,
        data.MAX_TEXT_CHARS,
        data.MAX_INSTRUCTION_CHARS,
        data.MAX_ID_CHARS,
        data.MAX_PATH_CHARS,
        MAX_LINE_BYTES,
        MAX_FILE_BYTES,
        MAX_PIXELS,
        MAX_ASPECT,
    ):
        assert f" {number:,} " in PAGE, number
    assert f"sides of {MIN_SIDE} pixels or more" in PAGE
    assert f"lists the first {SHOWN} of" in PAGE


def test_the_sample_is_what_our_code_draws(tmp_path: Path) -> None:
    rows, documents, images = write_sample(tmp_path / "shipped")
    draw_sample(tmp_path / "drawn")

    assert (rows, documents, images) == (24, 48, len(list((tmp_path / "drawn/images").iterdir())))

    for name in ("rows.jsonl", "rows.corpus.jsonl"):
        assert (tmp_path / "shipped" / name).read_bytes() == (
            tmp_path / "drawn" / name
        ).read_bytes()

    for path in sorted((tmp_path / "shipped/images").iterdir()):
        with (
            Image.open(path) as shipped,
            Image.open(tmp_path / "drawn/images" / path.name) as drawn,
        ):
            assert (
                ImageChops.difference(shipped.convert("RGB"), drawn.convert("RGB")).getbbox()
                is None
            ), path.name

    assert not check(tmp_path / "shipped/rows.jsonl", decode=True).wrong

    cells = {
        json.loads(line)["id"].split("/")[0]
        for line in (tmp_path / "shipped/rows.jsonl").open(encoding="utf-8")
    }

    assert len(cells) == 9
