"""Rows are read as written, in any order, and their problems are named with file and line
before anything is trained."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.errors import DataError
from model_store.lines import MAX_LINE_BYTES
from model_store.training.data.identity import content_key, normalize_text
from model_store.training.data.row_files import write_examples
from model_store.training.data.row_index import Examples, KeyedLines
from model_store.training.data.rows import (
    MAX_SIDES,
    MAX_TEXT_CHARS,
    Example,
    Negative,
    Side,
    parse_row,
    read_examples,
)
from model_store.training.data.splits import is_held_out, leaks, split
from model_store.training.data.validation import SHOWN, check
from tests.model_store.training.rows import draw, write_rows, written

FOLDER = Path("/data")
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(str.strip)
images = st.sampled_from([FOLDER / "a.png", FOLDER / "in/b c.jpg", FOLDER / "ü.webp"])
sides = st.one_of(
    st.builds(Side, texts, st.none()),
    st.builds(Side, st.none(), images),
    st.builds(Side, texts, images),
)
negatives = st.builds(Negative, sides, st.sampled_from(["hard", "random"]))


@st.composite
def examples(draw_from: st.DrawFn) -> Example:
    positives = draw_from(st.lists(sides, min_size=1, max_size=3))
    found = draw_from(st.lists(negatives, max_size=3))
    instruction = draw_from(st.none() | texts)
    return Example(
        draw_from(texts), instruction, draw_from(sides), tuple(positives), tuple(found), ""
    )


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(examples(), max_size=5), packed=st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Example], packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    here = [_moved(row, folder) for row in rows]
    path = folder / ("rows.jsonl.gz" if packed else "rows.jsonl")

    assert write_examples(path, here) == len(here)

    read = list(read_examples(path))

    assert [_at(row, "") for row in read] == here
    assert [row.location for row in read] == [
        f"{path}:{number}" for number in range(1, len(here) + 1)
    ]


def _moved(row: Example, folder: Path) -> Example:
    def moved(side: Side) -> Side:
        return Side(side.text, side.image and folder / side.image.relative_to(FOLDER))

    found = tuple(Negative(moved(negative.side), negative.kind) for negative in row.negatives)
    return Example(
        row.id,
        row.instruction,
        moved(row.query),
        tuple(map(moved, row.positives)),
        found,
        row.location,
    )


def _at(row: Example, location: str) -> Example:
    return replace(row, location=location)


def test_a_text_may_stand_for_a_side_and_a_row_is_named_by_its_place() -> None:
    row = parse_row(
        b'{"query": "q", "positives": ["p"], "negatives": ["n", {"image": "i.png", "kind":'
        b' "random"}]}',
        FOLDER / "t.jsonl",
        7,
    )
    found = (Negative(Side("n", None), "hard"), Negative(Side(None, FOLDER / "i.png"), "random"))
    assert row == Example(
        "t.jsonl:7", None, Side("q", None), (Side("p", None),), found, "/data/t.jsonl:7"
    )


WRONG = {
    '{"query": "q", "positives": []}': "there are 0 positives",
    json.dumps(
        {"query": "q", "positives": ["p"] * (MAX_SIDES + 1)}
    ): f"there are {MAX_SIDES + 1} positives",
    json.dumps(
        {"query": "q", "positives": ["p"], "negatives": ["n"] * (MAX_SIDES + 1)}
    ): f"there are {MAX_SIDES + 1} negatives",
    '{"positives": ["p"]}': "the row has no 'query'.",
    '{"query": "  ", "positives": ["p"]}': "query is empty",
    '{"query": {}, "positives": ["p"]}': "query is empty",
    '{"query": "q", "positives": [{"text": ""}]}': "positives[0] is empty",
    '{"query": "q", "positives": ["p"], "negatives": ["n", ""]}': "negatives[1] is empty",
    '{"query": "q", "positives": ["p"], "negative": []}': (
        "the row has an unknown field 'negative': is it 'negatives'?"
    ),
    '{"query": "q", "query_image_path": "a.png", "positives": ["p"]}': (
        "the row has an unknown field 'query_image_path'; known are query, positives, negatives,"
        " instruction, id, teacher_scores."
    ),
    '{"query": {"text": "q", "image_path": "a.png"}, "positives": ["p"]}': (
        "query has an unknown field 'image_path': is it 'image'?"
    ),
    '{"query": {"txt": "q"}, "positives": ["p"]}': (
        "query has an unknown field 'txt': is it 'text'?"
    ),
    '{"query": "q", "positives": [{"text": "p", "kind": "hard"}]}': (
        "positives[0] has an unknown field 'kind'; known are text, image."
    ),
    '{"query": "q", "positives": ["p"], "negatives": [{"text": "n", "kind": "soft"}]}': (
        "negatives[0].kind cannot be 'soft': it is 'hard' or 'random'."
    ),
    '{"query": 5, "positives": ["p"]}': "query must be a text or an object, not a number.",
    '{"query": "q", "positives": ["p"], "id": 5}': "id must be a text or null, not a number.",
    '{"query": {"image": "/etc/x.png"}, "positives": ["p"]}': "query.image must be a path inside",
    '{"query": {"image": "a/../../x.png"}, "positives": ["p"]}': (
        "query.image must be a path inside"
    ),
    '{"query": {"image": "C:\\\\x.png"}, "positives": ["p"]}': "query.image must be a path inside",
    '{"query": "q", "positives": ["a\\u0000b"]}': "positives[0].text has a NUL character",
    '{"query": "\\ud800", "positives": ["p"]}': "not one JSON object in UTF-8",
    json.dumps({"query": "q", "positives": ["p" * (MAX_TEXT_CHARS + 1)]}): "and 100000 are allowed",
    json.dumps({"query": "q", "positives": ["p"], "id": "i" * 257}): "id has 257 characters",
    "{": "not one JSON object in UTF-8",
    "[]": "the row must be an object, not a list.",
}


@pytest.mark.parametrize("line", WRONG, ids=WRONG.values())
def test_a_wrong_row_is_named_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"query": "q", "positives": ["p"]}}\n\n{line}\n', encoding="utf-8")
    reading = read_examples(path)

    assert next(reading).query.text == "q"
    with pytest.raises(DataError, match="^" + f"{path}:3: ".replace(".", r"\.")) as raised:
        next(reading)
    assert WRONG[line] in str(raised.value)

    report = check(path)

    assert (report.wrong, report.problems) == (1, [str(raised.value)])


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"query": "\xff", "positives": ["p"]}\n')
    assert check(path).problems == [f"{path}:1: this is not one JSON object in UTF-8."]


def test_a_file_that_cannot_be_read_to_its_end_says_where(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"query": "q", "positives": ["p"]}\n' * 10_000)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(packed[: len(packed) // 2])

    assert "the gzip file is cut off or damaged" in check(cut).problems[-1]

    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(b"no gzip at all")

    assert check(damaged).problems == [f"{damaged}:1: the gzip file is cut off or damaged."]

    missing = tmp_path / "missing.jsonl"

    assert check(missing).problems == [
        f"{missing}:1: the file cannot be read (No such file or directory)."
    ]

    endless = tmp_path / "endless.jsonl"
    with endless.open("wb") as file:
        file.truncate(MAX_LINE_BYTES + 2)

    assert check(endless).problems == [
        f"{endless}:1: the line is longer than {MAX_LINE_BYTES} bytes."
    ]
    with pytest.raises(DataError, match=r"endless\.jsonl:1: the line is longer"):
        Examples(endless)


def test_any_row_is_read_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [
        json.dumps({"query": f"ü{number}" * number, "positives": ["p"]}, ensure_ascii=False)
        for number in range(1, 8)
    ]
    # blank lines, and no end of the last
    path.write_text("\n" + "\n  \n".join(lines), encoding="utf-8")
    in_order = list(read_examples(path))
    rows = pickle.loads(pickle.dumps(Examples(path)))

    assert [rows[place] for place in reversed(range(len(rows)))] == in_order[::-1]
    with pytest.raises(IndexError):
        rows[7]

    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")

    with pytest.raises(DataError, match="has changed"):
        rows[0]
    with pytest.raises(DataError, match="unpack it first"):
        Examples(path.with_suffix(".jsonl.gz"))


def test_a_line_is_found_by_its_key_and_of_equal_keys_the_first(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(
        "".join(f"{key}\tline {number}\n" for number, key in enumerate("cabcab", 1)),
        encoding="utf-8",
    )
    table = KeyedLines(path, lambda line, number: line.decode().split("\t")[0])

    assert [table.find(key) for key in "abcd"] == [
        (2, b"a\tline 2"),
        (3, b"b\tline 3"),
        (1, b"c\tline 1"),
        None,
    ]


def test_every_problem_is_found_and_the_first_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "red.png", "red")
    draw(tmp_path / "same.png", "red")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    draw(tmp_path / "thin.png", "red", (1, 300))
    draw(tmp_path / "frame.gif", "red")
    draw(tmp_path / "huge.png", "red", (4001, 4000))
    good = {
        "id": "good",
        "query": {"image": "red.png"},
        "positives": ["A cat."],
        "negatives": [{"text": "A dog.", "kind": "random"}],
    }
    rows = [
        good,
        {**good, "query": "again"},
        {"query": "q", "positives": [{"image": "none.png"}]},
        {"query": "q", "positives": [{"image": "broken.png"}]},
        {"query": "q", "positives": [{"image": "thin.png"}, {"image": "frame.gif"}]},
        {"query": "q", "positives": ["x", "A  cat!"], "negatives": ["y", "a CAT"]},
        {"query": "q", "positives": [{"image": "red.png"}], "negatives": [{"image": "same.png"}]},
        {
            "query": "q",
            "positives": [{"text": "t", "image": "red.png"}],
            "negatives": [{"text": "u", "image": "same.png"}],
        },
        {"query": "q", "positives": [{"image": "huge.png"}]},
    ]
    path = write_rows(tmp_path / "train.jsonl", rows)
    report = check(path)

    assert report.problems == [
        f"{path}:2: the id 'good' is line 1's already.",
        f"{path}:3: positives[0].image 'none.png' does not exist.",
        f"{path}:4: positives[0].image 'broken.png' cannot be read as PNG, JPEG or WEBP.",
        f"{path}:5: positives[0].image 'thin.png' is 1 x 300 pixels: a side is too short.",
        f"{path}:5: positives[1].image 'frame.gif' cannot be read as PNG, JPEG or WEBP.",
        f"{path}:6: negatives[1] is the same as positives[1].",
        f"{path}:7: negatives[0] is the same as positives[0].",
        f"{path}:9: positives[0].image 'huge.png' has more than 16000000 pixels.",
    ]
    assert (
        report.rows,
        report.wrong,
        report.images,
        report.hard,
        report.random,
        report.without_negatives,
    ) == (9, 8, 7, 4, 2, 4)
    assert check(write_rows(tmp_path / "many.jsonl", [{}] * 50)).wrong == 50
    assert len(check(tmp_path / "many.jsonl").problems) == SHOWN


def test_a_picture_that_is_cut_off_is_found_when_it_is_decoded(tmp_path: Path) -> None:
    whole_file = draw(tmp_path / "cut.jpg", "red", (400, 400)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole_file[: len(whole_file) * 2 // 3])
    path = write_rows(
        tmp_path / "train.jsonl", [{"query": "q", "positives": [{"image": "cut.jpg"}]}]
    )

    assert not check(path).wrong
    assert check(path, decode=True).problems == [
        f"{path}:1: positives[0].image 'cut.jpg' cannot be read as PNG, JPEG or WEBP."
    ]


def test_contents_are_the_same_whatever_makes_no_difference_to_a_reader(tmp_path: Path) -> None:
    assert (
        normalize_text("  The ﬁrst\tCAFÉ, here! ")
        == normalize_text("the first café here")
        == "the first café here"
    )
    assert normalize_text("?!") != normalize_text("?")

    red, same, blue = (
        draw(tmp_path / f"{at}.png", colour) for at, colour in enumerate(("red", "red", "blue"))
    )
    keys = [
        content_key(Side(*pair))
        for pair in itertools.product((None, "a", "b"), (None, red, same, blue))
        if pair != (None, None)
    ]

    assert len(set(keys)) == len(keys) - 3  # red and same, with each of three texts


def test_no_query_is_in_both_parts_and_nothing_held_out_is_seen_in_training(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{number}",
            "query": f"Query {number % 60}",
            "positives": [f"doc {number % 45}"],
            "negatives": [f"doc {number % 45 + 1}", f"no {number}"],
        }
        for number in range(200)
    ]
    source = write_rows(tmp_path / "all.jsonl", rows)
    train, dev = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    done = split(source, train, dev, share=0.1, seed=3)
    kept = {example.id: example for example in read_examples(train)}
    held = {example.id: example for example in read_examples(dev)}

    assert (len(kept), len(held), done.train + done.dev + done.left_out) == (
        done.train,
        done.dev,
        200,
    )
    assert min(done.left_out, done.negatives_taken_out, len(held)) > 0
    assert not {row.query for row in kept.values()} & {row.query for row in held.values()}
    assert not {row.positives for row in kept.values()} & {row.positives for row in held.values()}
    assert leaks(train, dev).total == 0

    found = leaks(source, dev)

    assert found.queries == len(held) < found.positives
    assert found.negatives >= done.negatives_taken_out

    again = [
        is_held_out(row, 0.1, 3)
        for row in read_examples(write_rows(tmp_path / "b.jsonl", rows[::-1]))
    ]

    assert again[::-1] == [row["id"] in held for row in rows]


def test_a_near_copy_of_a_held_out_query_and_a_reversed_pair_are_leaks(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", "red")
    draw(tmp_path / "b.png", "red")
    dev = write_rows(
        tmp_path / "dev.jsonl", [{"query": "A red square.", "positives": [{"image": "a.png"}]}]
    )
    train = write_rows(
        tmp_path / "train.jsonl",
        [
            {"query": "a RED square", "positives": ["other"]},
            {"query": {"image": "b.png"}, "positives": ["another"]},
            {"query": "fine", "positives": ["fine too"], "negatives": ["none", {"image": "b.png"}]},
        ],
    )
    found = leaks(train, dev)

    assert (found.queries, found.positives, found.negatives) == (2, 0, 1)
    assert (
        found.sentences[2] == f"{train}:3: of its negatives, one is a held-out query or positive."
    )


def test_a_part_without_rows_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "all.jsonl", [{"query": "q", "positives": ["p"]}])
    before = written(tmp_path)

    with pytest.raises(
        DataError,
        match=r"with --share 0\.5 no row would be for training; a smaller --share gives it some",
    ):
        split(source, tmp_path / "train.jsonl", tmp_path / "dev.jsonl", share=0.5)
    assert written(tmp_path) == before


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")

    def rows() -> Iterator[Example]:
        yield Example("i", None, Side("q", None), (Side("p", None),), (), "")
        raise KeyError

    with pytest.raises(KeyError):
        write_examples(path, rows())
    assert written(tmp_path) == {"out.jsonl": b"old"}

    elsewhere = Example(
        "i", None, Side(None, tmp_path.parent / "x.png"), (Side("p", None),), (), ""
    )

    with pytest.raises(DataError, match="the image lies outside"):
        write_examples(path, [elsewhere])
    assert written(tmp_path) == {"out.jsonl": b"old"}


def test_where_the_disk_takes_no_more_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from model_store.errors import DataError\n"
        "from model_store.output_files import output_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with output_file(Path(sys.argv[1])) as write:\n"
        "        for _ in range(1000): write(b'x' * 1000)\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )

    assert done.stdout == f"{path}: it cannot be written (File too large).\n"
    assert written(tmp_path) == {"out.jsonl": b"old"}
