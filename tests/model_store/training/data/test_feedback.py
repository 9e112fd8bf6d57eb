"""Feedback as training rows: positives, hard negatives, and what is left out."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from model_store.evaluation.tasks.readers.judged_folder import JudgedFolder
from model_store.training.data.feedback.answers import Answer
from model_store.training.data.rows import read_examples
from model_store.training.data.validation import check
from service.cli.main import app
from tests.model_store.training.rows import draw, write_rows

NAME = "20261130T120000Z-0123456789abcdef.jsonl"
DOCUMENTS = ["first", "second", "third", "fourth"]


class Folder:
    """A folder of feedback that a test writes, a line after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[dict[str, Any]] = []

    def line(self, kind: str, answer: str, at: float = 1.0, **fields: Any) -> None:
        common = {"v": 1, "kind": kind, "answer": answer, "request_id": f"r-{answer}"}
        self._lines.append(common | {"tenant": "acme", "at": at} | fields)

    def answer(
        self,
        name: str,
        *,
        query: str = "q",
        documents: list[Any] | None = None,
        clicked: tuple[int, ...] = (),
        grades: dict[int, int] | None = None,
        shown: list[int] | None = None,
        at: float = 1.0,
        **fields: Any,
    ) -> None:
        """An answer in the documents' order with its content, and one line of events."""
        parts = [
            each if isinstance(each, list) else [{"text": each}] for each in documents or DOCUMENTS
        ]
        results = [
            {"index": index, "digest": "0" * 32, "score": 0.5} for index in range(len(parts))
        ]
        self.line("answer", name, at, model="m", digest="d", results=results, **fields)
        contents = {str(index): each for index, each in enumerate(parts)}
        self.line("content", name, at, query=[{"text": query}], documents=contents, **fields)
        events: list[dict[str, Any]] = [{"index": index, "clicked": True} for index in clicked]
        events += [{"index": index, "grade": grade} for index, grade in (grades or {}).items()]
        seen = {} if shown is None else {"shown": shown}
        self.line("events", name, at + 1, events=events, **seen, **fields)

    def write(self, name: str = NAME) -> Path:
        write_rows(self.path / "events" / name, self._lines)
        self._lines = []
        return self.path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "feedback")


def run(folder: Path, *options: str, code: int = 0, name: str = "feedback") -> str:
    """The output of `gmr data`, on success or on failure."""
    rows = [str(folder.parent / "rows.jsonl")] if name == "feedback" else []
    done = CliRunner().invoke(app, ["data", name, str(folder), *rows, *options])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def rows(folder: Path, *options: str) -> dict[str, tuple[list[str], list[str]]]:
    """The texts of positives and of negatives of each query."""
    run(folder, *options)
    path = folder.parent / "rows.jsonl"
    assert check(path, decode=True).problems == []
    return {
        str(example.query.text): (
            sorted(str(side.text) for side in example.positives),
            sorted(str(negative.side.text) for negative in example.negatives),
        )
        for example in read_examples(path)
    }


def test_a_click_is_a_positive_and_what_it_passes_over_a_negative(folder: Folder) -> None:
    folder.answer("a", clicked=(2,))
    folder.answer("b", query="r", clicked=(1,), shown=[3, 0, 1, 2])
    folder.answer("c", query="s", clicked=(0,), shown=[0, 1])
    assert rows(folder.write()) == {
        "q": (["third"], ["first", "second"]),
        "r": (["second"], ["first", "fourth"]),  # in the order of the page
        "s": (["first"], []),
    }


def test_a_grade_overrules_clicks_and_its_mean_counts(folder: Folder) -> None:
    folder.answer("a", clicked=(3,), grades={0: 3, 1: 0, 3: 0})
    folder.answer("b", clicked=(3,), grades={0: 1})
    assert rows(folder.write(), "--min-grade", "2") == {
        "q": (["first"], ["fourth", "second", "third"])
    }


def test_requests_of_equal_content_are_added_up(folder: Folder) -> None:
    for number in range(4):
        clicked = (1,) if number < 3 else (2,)
        folder.answer(
            f"a{number}", query="The  Query" if number % 2 else "the query!", clicked=clicked
        )
    enough = ("--min-clicks", "2", "--min-impressions", "3", "--min-skips", "2")
    ((query, found),) = rows(folder.write(), *enough).items()
    assert query.lower().startswith("the")
    # the third document has one click in one impression: too little to tell
    assert found == (["second"], ["first"])
    report = json.loads((folder.path.parent / "rows.jsonl.report.json").read_text())
    assert report["answers"]["impressions"][:3] == [4, 4, 1]
    assert report["answers"]["clicks"][:3] == [0, 3, 1]
    assert report["rows"]["undecided"] == 1


def test_what_is_written_twice_counts_once(folder: Folder) -> None:
    """Two gateways take the same events, and each writes the answer."""
    folder.answer("a", clicked=(1,))
    folder.write()
    folder.answer("a", clicked=(1,))
    folder.line(
        "events", "a", 9.0, events=[{"index": 2, "grade": 0}, {"index": 1, "clicked": True}]
    )
    folder.line("events", "a", 5.0, events=[{"index": 2, "grade": 4}])
    folder.write(NAME.replace("0123", "4567"))
    assert rows(folder.path) == {"q": (["second"], ["first", "third"])}
    assert "2 events were there twice" in run(folder.path)


def test_instructions_tenants_and_days_are_apart(folder: Folder) -> None:
    folder.answer("a", clicked=(1,))
    folder.answer("b", clicked=(1,), tenant="globex", query="other")
    folder.answer("c", clicked=(2,), at=1_800_000_000.0, query="late")
    folder.line(
        "content", "d", query=[{"text": "q"}], documents={"0": [{"text": "x"}]}, instruction="find"
    )
    folder.line("answer", "d", model="m", digest="d", results=[{"index": 0}])
    folder.line("events", "d", events=[{"index": 0, "clicked": True}])
    path = folder.write()
    assert len(rows(path)) == 3
    instructions = [each.instruction for each in read_examples(path.parent / "rows.jsonl")]
    assert sorted(map(str, instructions)) == ["None", "None", "None", "find"]
    assert set(rows(path, "--tenant", "globex")) == {"other"}
    assert set(rows(path, "--since", "2027-01-01")) == {"late"}


def test_a_day_is_that_of_the_feedback_also_where_its_answer_is_older(folder: Folder) -> None:
    midnight = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    folder.answer("a", query="clicked before", clicked=(1,), at=midnight - 90)
    folder.answer("b", query="clicked after, too", clicked=(1,), at=midnight - 60)
    folder.line("events", "b", midnight, events=[{"index": 2, "clicked": True}])
    path = folder.write()
    assert rows(path, "--since", "2026-11-30") == {
        "clicked after, too": (["third"], ["first", "second"])
    }
    assert run(path, "--since", "2026-11-30").startswith("1 events on 1 answers;")


def test_pictures_come_along_and_sides_that_no_row_can_have_are_left_out(folder: Folder) -> None:
    drawn = draw(folder.path / "drawn.png", "red")
    digest = hashlib.sha256(drawn.read_bytes()).hexdigest()
    kept = folder.path / "pictures" / digest[:2] / f"{digest}.png"
    kept.parent.mkdir(parents=True)
    drawn.rename(kept)
    picture, gone = {"image": f"sha256:{digest}"}, {"image": f"sha256:{'0' * 64}"}
    documents = [[{"text": "a"}, {"text": "b"}], [gone], [{"image": "../../etc"}], [picture]]
    folder.answer("a", documents=documents, clicked=(3,))
    assert rows(folder.write()) == {"q": (["None"], [])}
    (example,) = read_examples(folder.path.parent / "rows.jsonl")
    image = example.positives[0].image
    assert image is not None
    assert image.read_bytes() == kept.read_bytes()
    assert not image.is_symlink()
    assert json.loads((folder.path.parent / "rows.jsonl.report.json").read_text())["left_out"] == {
        "sides of several texts or pictures": 1,
        "sides without their picture": 2,
    }


def test_a_side_that_is_left_out_counts_once_however_often_it_is_read(folder: Folder) -> None:
    """More answers than contents are in memory at a time."""
    for number in range(70):
        folder.answer(f"a{number}", query=f"q{number}", documents=["x", " "], clicked=(0,))
    assert "Left out: empty sides: 70\n" in run(folder.write())


def test_the_operators_log_has_the_contents(folder: Folder) -> None:
    results = [{"index": index} for index in (2, 0, 1)]
    for name, request_id in (("a", "one"), ("b", "twice"), ("c", "absent")):
        folder.line("answer", name, model="m", digest="d", results=results, request_id=request_id)
        events = [{"index": 0, "clicked": True}]
        folder.line("events", name, events=events, request_id=request_id)
    path = folder.write()
    sent = {"query": "q", "documents": ["x", {"id": 7, "text": "y"}, {"text": "z"}]}
    log = write_rows(
        path.parent / "log.jsonl",
        [
            {"request_id": "one", "user": "unread", "instruction": "find", **sent},
            {"request_id": "twice", **sent},
            {"request_id": "twice", **sent},
            {"request_id": "other", **sent},
        ],
    )
    assert rows(path, "--log", str(log)) == {"q": (["x"], ["z"])}
    (example,) = read_examples(path.parent / "rows.jsonl")
    assert example.instruction == "find"
    assert "request id is there twice: 1" in run(path, "--log", str(log))
    assert "no content here: give --log" in run(path, code=1)

    for wrong, sentence in (
        ({"request_id": "one", "query": "q"}, ":1: the row has no 'documents'"),
        ({"request_id": "one", "query": {"txt": "q"}, "documents": []}, "unknown field 'txt'"),
        ({"request_id": "one", "query": "", "documents": ["x"]}, ":1: query is empty"),
        ({"request_id": "one", "query": "q", "documents": [{"image": "../x.png"}]}, "'..'"),
    ):
        write_rows(log, [wrong])
        assert sentence in run(path, "--log", str(log), code=1)


def test_judged_queries_are_those_that_eval_reads(folder: Folder) -> None:
    folder.answer("a", clicked=(2,))
    folder.answer("b", query="r", clicked=(1,), shown=[3, 0, 1, 2])
    judged = folder.path.parent / "judged"
    run(folder.write(), "--judgements", str(judged))
    opened = JudgedFolder(judged)
    assert (len(opened), opened.kind) == (2, "clicks")

    folder.answer("c", grades={0: 3})
    folder.write(NAME.replace("0123", "4567"))
    run(folder.path, "--judgements", str(judged))
    assert JudgedFolder(judged).kind == "grade"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no JSON\n", ":1: this is no line of feedback."),
        (b'{"v":1,"kind":"other"}\n', ":1: this is no line of feedback."),
        (b'{"v":2,"kind":"forget","answer":"","request_id":"r","tenant":"","at":1}\n', "version 2"),
        (b'{"v":1,"kind":"forget","answer":"","request_id":"r","tenant":"","at":1}', "cut off"),
        (b"\xff\n", ":1: this is no line of feedback."),
        (b"", "there is no feedback on any answer."),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "feedback" / "events" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert sentence in run(tmp_path / "feedback", code=1)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_folder_without_feedback_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feedback").mkdir()
    assert "there is no feedback in it" in run(tmp_path / "feedback", code=1)


def test_requests_and_tenants_are_forgotten(folder: Folder) -> None:
    folder.answer("a", clicked=(1,))
    folder.answer("b", query="mine", clicked=(1,), tenant="globex")
    folder.answer("c", query="kept", clicked=(1,))
    path = folder.write()
    folder.answer("d", query="open", clicked=(1,))
    folder.write(NAME.replace("0123", "4567") + ".open")

    for options, left in (
        (("--request-id", "r-a"), {"mine", "kept", "open"}),
        (("--tenant", "globex"), {"kept", "open"}),
        (("--request-id", "r-d"), {"kept"}),
    ):
        run(path, *options, name="forget")
        assert set(rows(path)) == left
    text = (path / "events" / NAME).read_text()
    assert "kept" in text
    assert "mine" not in text
    still_open = path / "events" / (NAME.replace("0123", "4567") + ".open")
    assert "open" in still_open.read_text()

    still_open.rename(still_open.with_suffix(""))  # as a gateway that ends does
    assert "3 lines" in run(path, name="forget")
    assert not still_open.with_suffix("").exists()
    assert "0 lines" in run(path, name="forget")


def test_what_a_killed_gateway_left_is_forgotten(folder: Folder) -> None:
    folder.answer("a", query="mine", clicked=(1,))
    folder.answer("b", query="kept", clicked=(1,))
    path = folder.write(NAME + ".open")
    left = path / "events" / (NAME + ".open")
    with left.open("a") as file:
        file.write('{"v":1,"kind":"cont')  # killed while it wrote
    os.utime(left, (0, 0))
    assert "3 lines" in run(path, "--request-id", "r-a", name="forget")
    text = left.with_suffix("").read_text()
    assert "kept" in text
    assert "mine" not in text
    assert not left.exists()
    assert set(rows(path)) == {"kept"}


def test_a_file_of_what_was_forgotten_is_younger_than_all_that_it_is_about(folder: Folder) -> None:
    folder.answer("a", clicked=(1,))
    path = folder.write()
    run(path, "--tenant", "acme", name="forget")
    (forgotten,) = (path / "events").iterdir()
    named = datetime.strptime(forgotten.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert named > datetime.now(UTC) + timedelta(days=30)


def test_what_is_asked_after_a_request_was_forgotten_counts(folder: Folder) -> None:
    folder.answer("a", clicked=(1,))
    folder.line("forget", "", 5.0, request_id="r-a")
    folder.answer("b", query="again", clicked=(1,), request_id="r-a", at=6.0)
    assert set(rows(folder.write())) == {"again"}


ANSWERS = st.builds(
    Answer,
    id=st.just("a"),
    request_id=st.just("r"),
    tenant=st.just(""),
    at=st.just(1.0),
    results=st.permutations(range(6)).map(tuple),
    location=st.just("f:1"),
    shown=st.none() | st.lists(st.integers(0, 5), unique=True, min_size=1).map(tuple),
    clicked=st.sets(st.integers(0, 5)),
    grades=st.dictionaries(st.integers(0, 5), st.integers(0, 3)),
)


@given(ANSWERS)
def test_a_skip_is_seen_above_a_click_and_never_clicked_or_graded(answer: Answer) -> None:
    displayed, skipped = answer.displayed(), answer.skipped()
    assert skipped <= set(displayed)
    assert not skipped & (answer.clicked | answer.grades.keys())
    for index in skipped:
        below = displayed[displayed.index(index) :]
        assert answer.clicked & set(below)
