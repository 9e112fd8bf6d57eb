"""Reports of `gmr data check --report`: whole, self-contained, and harmless whatever rows hold."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from model_store.training.data.report.escaping import html_text, markdown_text, plain_html
from model_store.training.data.report.thumbnails import SIDE
from model_store.training.sample import write_sample
from service.cli.main import app
from tests.model_store.training.rows import draw, write_rows

HOSTILE = [
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    "\u202eevil\u202c \u2066and\u2069 \u200b\ufeff",
    "[link](javascript:alert(1)) | cell | ![x](http://evil.example/x.png) http://evil.example",
    "`code` **bold** <b>tag</b> # heading\n# heading\n\n| a | b |\n---\n",
    "Z" + "\u0301" * 300,
    "</svg><svg onload=alert(1)>",
    "a" * 5_000,
    '" onmouseover="alert(1)" x="',
    "&lt;script&gt; &#60;script&#62;",
]


def hostile(folder: Path) -> Path:
    """Rows that would take over a page that believed them."""
    draw(folder / "images/a.png", "red", (200, 100))
    draw(folder / "images/<img src=x onerror=alert(1)>.png", "blue")
    (folder / "images/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n<script>")
    rows: list[dict[str, Any]] = []
    for number, text in enumerate(HOSTILE):
        rows.append(
            {
                "id": f"{number} {text[:100]}",
                "instruction": text[:500],
                "query": {"text": text, "image": "images/a.png"},
                "positives": [
                    {"text": text, "image": "images/<img src=x onerror=alert(1)>.png"},
                    HOSTILE[number - 1],
                ],
                "negatives": ["same", {"text": "Same!", "kind": "random"}, text + " and more"],
            }
        )
    rows.append({"query": "weather", "positives": [{"image": "images/broken.png"}]})
    return write_rows(folder / "rows <b>.jsonl", rows)


def reported(path: Path, report: Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["data", "check", str(path), "--report", str(report)])
    assert done.exit_code == code, done.output
    return report.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


ELEMENTS = (
    "html head meta title style body a header h1 h2 h3 h4 bdi span ul li ol strong main section p"
    " article details summary div figure figcaption svg text rect line circle title img code"
    " footer"
)
ATTRIBUTES = (
    "lang charset http-equiv content name class id href dir src alt title viewbox role aria-label"
    " x y x1 y1 x2 y2 cx cy r rx width height"
)


def test_a_page_has_no_element_but_its_own_and_asks_for_nothing(tmp_path: Path) -> None:
    page = reported(hostile(tmp_path), tmp_path / "r.html", code=1)
    elements = Elements(page)
    assert {tag for tag, _ in elements.found} <= set(ELEMENTS.split())
    for tag, attributes in elements.found:
        assert set(attributes) <= set(ATTRIBUTES.split()), tag
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/webp;base64,")
        if tag == "a":
            assert str(attributes["href"]).startswith("#")

    shown = "".join(elements.texts)
    assert "<script>alert(1)</script>" in shown
    assert "&lt;script&gt; &#60;script&#62;" in shown
    assert "U+202E" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff]", page)
    assert "\u0301" * 5 not in page
    assert "5,000 characters" in shown
    assert "positives[0].image 'broken.png' cannot be read" in shown

    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in policy[1]


def test_thumbnails_are_small_copies_of_their_own(tmp_path: Path) -> None:
    page = reported(hostile(tmp_path), tmp_path / "r.html", code=1)
    uris = {
        value
        for tag, attributes in Elements(page).found
        if tag == "img"
        for value in [attributes["src"]]
    }
    assert len(uris) == 2  # each picture once, and none of what is broken
    for uri in uris:
        with Image.open(io.BytesIO(base64.b64decode(str(uri).partition(",")[2]))) as picture:
            assert max(picture.size) <= SIDE


def test_equal_files_give_equal_reports_and_the_sample_is_shown(tmp_path: Path) -> None:
    write_sample(tmp_path / "rows")
    source = tmp_path / "rows/rows.jsonl"
    first = reported(source, tmp_path / "a.html")
    assert first == reported(source, tmp_path / "b.html")
    assert first.count('<article class="row">') >= 24
    assert first.count("<figure") >= 7
    assert "Where does the orange ring come from?" in first
    assert "gmr size gmr-3b --train --rows 24" in first


def test_markdown_is_text_tables_and_pictures_at_its_end(tmp_path: Path) -> None:
    text = reported(hostile(tmp_path), tmp_path / "r.md", code=1)
    body = text[: text.index("[picture-1]: data:")]
    assert not re.search(r"(?<!\\)<(?!br>)", body)
    assert "http://" not in body  # no address that is made a link
    assert "\u202e" not in text
    for line in body.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            assert len(cells) in {2, 3, 4, 5, 6}, line
    tables = [line for line in body.splitlines() if line.startswith("| line |")]
    assert tables
    defined = set(re.findall(r"^\[(picture-\d+)\]: data:image/webp;base64,", text, re.MULTILINE))
    assert set(re.findall(r"\]\[(picture-\d+)\]", body)) == defined


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_rows_without_negatives_are_not_said_to_be_ready(tmp_path: Path, name: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"query": "a", "positives": ["b"]}])
    done = CliRunner().invoke(app, ["data", "check", str(rows), "--report", str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    report = (tmp_path / name).read_text(encoding="utf-8")
    assert "1 row without negatives" in report
    assert "reads every row" not in report


def test_a_report_of_no_row_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("no JSON\n")
    for name in ("r.html", "r.md"):
        assert "this is not one JSON object" in reported(path, tmp_path / name, code=1).replace(
            "\\", ""
        )
    path.write_text("")
    assert "<strong>0</strong> <span>rows</span>" in reported(path, tmp_path / "r.html")
    missing = CliRunner().invoke(
        app, ["data", "check", str(tmp_path / "no.jsonl"), "--report", str(tmp_path / "no.html")]
    )
    assert missing.exit_code == 1
    assert "the file cannot be read" in missing.stderr


def test_a_report_is_not_one_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.md"
    path.write_text(json.dumps({"query": "q", "positives": ["p"]}) + "\n")
    before = path.read_bytes()
    done = CliRunner().invoke(app, ["data", "check", str(path), "--report", str(path)])
    assert (done.exit_code, path.read_bytes()) == (1, before)
    assert "it is read or written by this command already" in done.stderr


@given(st.text(max_size=300))
def test_any_text_is_text(text: str) -> None:
    elements = Elements(f"<p>{html_text(text)}</p>")
    assert {tag for tag, _ in elements.found} <= {"p", "span"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", html_text(text))
    assert "<" not in plain_html(text)
    assert '"' not in plain_html(text)

    line = markdown_text(text)
    assert "\n" not in line
    assert not re.search(
        r"(?<!\\)(?:\\\\)*[|`*_\[\]<>]", line.replace("&lt;", "").replace("&gt;", "")
    )


@pytest.mark.parametrize("most", [1, 5])
def test_a_long_text_is_cut_and_its_length_said(most: int) -> None:
    assert html_text("abcdefgh", most).startswith("abcdefgh"[:most] + " <span")
    assert "8 characters" in markdown_text("abcdefgh", most)
