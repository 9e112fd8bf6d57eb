"""Bad rows are skipped, counted and bounded; a file of two tasks is told apart; foreign rows become
ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from model_store.commands import convert as data_commands
from model_store.errors import DataError
from model_store.training.data.converters.flagembedding import convert_flagembedding
from model_store.training.data.converters.mbeir import TASK_IDS, convert_mbeir
from model_store.training.data.converters.msmarco import convert_msmarco
from model_store.training.data.converters.swift import convert_swift
from model_store.training.data.converters.tables import read_qrels
from model_store.training.data.converters.vidore import convert_pages, convert_vidore
from model_store.training.data.corpus import Corpus
from model_store.training.data.instructions import MODALITIES
from model_store.training.data.rows import Side, modality_of, read_examples
from model_store.training.data.validation import check
from tests.model_store.training.rows import draw, write_rows, written


def picture(folder: Path, name: str, colour: str) -> bytes:
    return draw(folder / name, colour).read_bytes()


def tiff(folder: Path) -> bytes:
    Image.new("RGB", (32, 28), "red").save(folder / "a.tiff")
    return (folder / "a.tiff").read_bytes()


# Two tasks in one file, as M-BEIR's WebQA has them


@pytest.fixture
def webqa(tmp_path: Path) -> Path:
    root = tmp_path / "M-BEIR"
    draw(root / "images/a.png", "red")
    pool: list[dict[str, Any]] = [
        {
            "did": f"2:{n}",
            "txt": f"A passage on {n}.",
            "img_path": None,
            "modality": "text",
            "src_content": None,
        }
        for n in range(3)
    ]
    pool += [
        {
            "did": f"2:{n}",
            "txt": f"Image {n}.",
            "img_path": "images/a.png",
            "modality": "image,text",
            "src_content": None,
        }
        for n in range(3, 6)
    ]
    queries = [
        {
            "qid": f"2:{100 + n}",
            "query_txt": f"question {n}",
            "query_img_path": None,
            "query_modality": "text",
            "query_src_content": None,
            "pos_cand_list": [f"2:{n}"],
            "neg_cand_list": [f"2:{(n + 1) % 6}", f"2:{(n + 3) % 6}"],
            "task_id": TASK_IDS["T-T" if n < 3 else "T-IT"],
        }
        for n in range(6)
    ]
    write_rows(root / "pool.jsonl", pool)
    write_rows(root / "queries.jsonl", queries)
    return root


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("task", ["T-T", "T-IT"])
def test_one_task_of_a_file_that_holds_two(webqa: Path, task: str, suffix: str) -> None:
    out = webqa / f"{task}.jsonl"
    sources = [webqa / f"{name}.{suffix}" for name in ("queries", "pool")]
    if suffix == "parquet":
        for path in sources:
            rows = [
                json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()
            ]
            pq.write_table(pa.Table.from_pylist(rows), path)
    documents, examples = convert_mbeir(*sources, out, root=webqa, task=task)

    assert (documents.written, examples.written, examples.bad) == (3, 3, 0)
    assert examples.counts["skipped: another task"] == 3

    query, document = MODALITIES[task]
    for row in read_examples(out):
        sides = [*row.positives, *(negative.side for negative in row.negatives)]
        assert modality_of(row.query) == query
        assert {modality_of(side) for side in sides} == {document}

    assert {modality_of(found.side) for found in Corpus(webqa / f"{task}.corpus.jsonl")} == {
        document
    }


def test_a_file_without_task_ids_is_told_apart_by_modality(webqa: Path) -> None:
    rows = [
        json.loads(line) | {"task_id": None}
        for line in (webqa / "queries.jsonl").read_text().splitlines()
    ]
    write_rows(webqa / "queries.jsonl", rows)
    ids = {}
    for task in ("T-T", "T-IT"):
        out = webqa / f"{task}.jsonl"
        convert_mbeir(webqa / "queries.jsonl", webqa / "pool.jsonl", out, root=webqa, task=task)
        ids[task] = {row.id for row in read_examples(out)}

    assert ids == {"T-T": {"2:100", "2:101", "2:102"}, "T-IT": {"2:103", "2:104", "2:105"}}


# Bad rows


def test_bad_rows_are_skipped_counted_and_named_up_to_the_bound(webqa: Path) -> None:
    with (webqa / "queries.jsonl").open("a", encoding="utf-8") as file:
        for row in (
            {"qid": "2:200", "query_txt": "q", "query_modality": "text", "pos_cand_list": ["2:77"]},
            {
                "qid": "2:201",
                "query_txt": "q",
                "query_modality": "text",
                "pos_cand_list": ["2:77", "2:0"],
            },
            {
                "qid": "2:202",
                "query_txt": "q",
                "query_image_path": "images/a.png",
                "pos_cand_list": ["2:0"],
            },
            {"qid": "i" * 300, "query_txt": "q", "pos_cand_list": ["2:0"]},
        ):
            file.write(json.dumps(row) + "\n")
        file.write("no JSON\n")

    sources = (webqa / "queries.jsonl", webqa / "pool.jsonl")

    with pytest.raises(
        DataError, match=r"queries\.jsonl:11: .*More rows are bad than --max-bad 4 allows\.$"
    ):
        convert_mbeir(*sources, webqa / "four.jsonl", root=webqa, max_bad=4)
    assert not (webqa / "four.jsonl").exists()

    _, examples = convert_mbeir(*sources, webqa / "five.jsonl", root=webqa, max_bad=5)

    # one of them was written without the document that is not there
    assert (examples.bad, examples.written) == (5, 7)
    assert [sentence.split(": ", 1)[1] for sentence in examples.bad_rows] == [
        "the document '2:77' is not in five.corpus.jsonl.",
        "the document '2:77' is not in five.corpus.jsonl.",
        "the row has an unknown field 'query_image_path': is it 'query_img_path'?",
        "id has 300 characters, and 256 are allowed.",
        "this is not one JSON object in UTF-8.",
    ]

    rows = {row.id: row for row in read_examples(webqa / "five.jsonl")}

    assert rows["2:201"].positives == (Side("A passage on 0.", None),)
    assert not check(webqa / "five.jsonl").wrong

    report = json.loads((webqa / "five.jsonl.report.json").read_text())

    assert (report["read"], report["bad"], report["bad_rows"]) == (11, 5, examples.bad_rows)


def test_the_row_that_is_one_too_many_is_named_however_many_came_before(webqa: Path) -> None:
    with (webqa / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n" * 40)
    with pytest.raises(
        DataError,
        match=r"queries\.jsonl:37: the row has no 'qid'\. More rows are bad than --max-bad 30",
    ):
        convert_mbeir(
            webqa / "queries.jsonl",
            webqa / "pool.jsonl",
            webqa / "out.jsonl",
            root=webqa,
            max_bad=30,
        )


def test_bad_pages_cost_themselves_alone(tmp_path: Path) -> None:
    good = picture(tmp_path, "red.png", "red")
    pages = [
        {"corpus-id": 1, "image": {"bytes": good}},
        {"corpus-id": 2, "image": None},
        {"corpus-id": 3, "image": {"bytes": tiff(tmp_path)}},
        {"corpus-id": 4, "image": {"bytes": b"no image"}},
        {"corpus-id": 5, "image": {"bytes": picture(tmp_path, "line.png", "blue")[:40]}},
    ]
    for folder, rows in (
        ("corpus", pages),
        ("queries", [{"query-id": n, "query": f"question {n}"} for n in range(1, 4)]),
        ("qrels", [{"query-id": n, "corpus-id": n, "score": 1} for n in range(1, 6)]),
    ):
        (tmp_path / "source" / folder).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "source" / folder / "a.parquet")

    documents, examples = convert_vidore(tmp_path / "source", tmp_path / "out.jsonl", max_bad=4)

    assert (documents.written, documents.bad) == (1, 4)
    assert "a.parquet:3: the image cannot be read as PNG, JPEG, WEBP" in documents.bad_rows[1]
    # judgements of those pages are no second fault
    assert (examples.written, examples.bad) == (1, 0)
    assert examples.counts["skipped: no relevant document is in the corpus"] == 2

    pages_alone = write_rows(tmp_path / "pages.jsonl", [{"query": "q", "image": "???"}])
    with pages_alone.open("ab") as file:
        file.write(json.dumps({"query": "q2"}).encode() + b"\n")

    with pytest.raises(
        DataError,
        match=r"the source gives no row \(2 bad rows\); .*pages\.jsonl:1: the image is no base64",
    ):
        convert_pages(pages_alone, tmp_path / "pages-out.jsonl", max_bad=2)


def test_a_judgement_of_a_passage_that_was_empty_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("1\tone\n2\t \n3\tthree\n")
    (tmp_path / "queries.tsv").write_text("q1\tfirst\nq2\tsecond\n")
    (tmp_path / "qrels.tsv").write_text("q1\t0\t1\t1\nq1\t0\t2\t1\nq2\t0\t2\t1\n")
    sources = [tmp_path / f"{name}.tsv" for name in ("collection", "queries", "qrels")]
    documents, examples = convert_msmarco(*sources, tmp_path / "out.jsonl")

    assert (documents.written, documents.counts["skipped: empty passage"]) == (2, 1)
    assert (examples.written, examples.bad) == (1, 0)
    assert examples.counts["documents named, which were left out"] == 2


def test_a_negative_that_equals_a_positive_is_left_out(webqa: Path) -> None:
    with (webqa / "pool.jsonl").open("a", encoding="utf-8") as pool:
        pool.write(json.dumps({"did": "2:50", "txt": "a passage on 0", "modality": "text"}) + "\n")

    row = {
        "qid": "2:300",
        "query_txt": "q",
        "pos_cand_list": ["2:0"],
        "neg_cand_list": ["2:50", "2:1"],
    }
    queries = write_rows(webqa / "one.jsonl", [row])
    convert_mbeir(queries, webqa / "pool.jsonl", webqa / "out.jsonl", root=webqa)

    assert not check(webqa / "out.jsonl").wrong


# Judgements


@pytest.mark.parametrize(
    "written_as",
    [
        "q1 0 d1 1\nq1 0 d2 2\nq1 0 d3 0\nq2 Q0 d1 -1\n",
        "q1\t0\td1\t1\nq1\t0\td2\t2\nq1\t0\td3\t0\nq2\t0\td1\t-1\n",
        "q1   0 d1\t1\nq1 0  d2 2\nq1 0 d3 0\nq2 0 d1 -1\n".replace("\t", " "),
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\nq1\td3\t0\nq2\td1\t-1\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\nq1\td2\t2\r\nq1\td3\t0\r\n",
    ],
    ids=["TREC, spaces", "TREC, tabs", "TREC, runs of spaces", "BEIR", "BEIR, BOM and CRLF"],
)
def test_judgements_of_trec_and_beir(tmp_path: Path, written_as: str) -> None:
    path = tmp_path / "qrels"
    path.write_text(written_as, encoding="utf-8", newline="")
    judgements, done = read_qrels(path)

    assert (judgements.documents("q1"), judgements.documents("q2"), done.bad) == (
        ("d1", "d2"),
        (),
        0,
    )
    assert read_qrels(path, min_grade=2)[0].documents("q1") == ("d2",)


identities = st.text(
    st.characters(categories=["L", "N", "P"], exclude_characters="\ufeff"), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(identities, identities, st.integers(-2, 3)), max_size=12))
def test_every_form_of_the_same_judgements_is_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, judged: list[tuple[str, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("qrels") / "qrels"
    relevant: dict[str, list[str]] = {}
    for query, document, grade in judged:
        if grade >= 1:
            relevant.setdefault(query, []).append(document)

    for cells, header in (
        ("{} 0 {} {}", ""),
        ("{}\t0\t{}\t{}", ""),
        ("{}\t{}\t{}", "query-id\tcorpus-id\tscore\n"),
    ):
        path.write_text(
            header + "".join(cells.format(*one) + "\n" for one in judged), encoding="utf-8"
        )
        judgements, done = read_qrels(path)
        assert done.bad == 0
        assert {query: judgements.documents(query) for query, _, _ in judged} == {
            query: tuple(relevant.get(query, ())) for query, _, _ in judged
        }


def test_bad_judgements_are_counted_by_the_same_bound(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("1\tone\n")
    (tmp_path / "queries.tsv").write_text("q1\tfirst\nq2\n")
    (tmp_path / "qrels.tsv").write_text("q1 0 1 1\nq1 0 1 nan\nq1 1\n")
    sources = [tmp_path / f"{name}.tsv" for name in ("collection", "queries", "qrels")]

    with pytest.raises(
        DataError, match=r"queries\.tsv:2: 1 cells, and there must be 2\. .*--max-bad 2 allows"
    ):
        convert_msmarco(*sources, tmp_path / "out.jsonl", max_bad=2)

    _, examples = convert_msmarco(*sources, tmp_path / "out.jsonl", max_bad=3)

    assert (examples.written, examples.bad) == (1, 3)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_beirs_files_and_mtebs_columns(tmp_path: Path, suffix: str) -> None:
    identity = "_id" if suffix == "jsonl" else "id"
    corpus = [
        {identity: f"d{n}", "title": "Title" if n else "", "text": f"body {n}"} for n in range(3)
    ]
    queries = [{identity: f"q{n}", "text": f"question {n}"} for n in range(2)]
    paths = []
    for name, rows in (("corpus", corpus), ("queries", queries)):
        paths.append(tmp_path / f"{name}.{suffix}")
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), paths[-1])
        else:
            write_rows(paths[-1], rows)

    (tmp_path / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t2\nq1\td0\t1\n")
    convert_msmarco(*paths, tmp_path / "train.tsv", tmp_path / "out.jsonl", min_grade=2)
    (row,) = read_examples(tmp_path / "out.jsonl")

    assert (row.id, row.positives) == ("q0", (Side("Title body 1", None),))


def test_mtebs_folders_with_texts_and_images(tmp_path: Path) -> None:
    image = {"bytes": picture(tmp_path, "red.png", "red"), "path": None}
    other = {"bytes": picture(tmp_path, "blue.png", "blue"), "path": None}
    for folder, rows in (
        (
            "corpus",
            [{"id": "d0", "title": "T", "text": "both", "image": image, "modality": "image,text"}],
        ),
        ("queries", [{"id": "q0", "text": "asked of", "image": other, "modality": "image,text"}]),
        ("default", [{"query-id": "q0", "corpus-id": "d0", "score": 1}]),
    ):
        (tmp_path / "task" / folder).mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist(rows), tmp_path / "task" / folder / "test-00000-of-00001.parquet"
        )

    convert_vidore(tmp_path / "task", tmp_path / "out.jsonl")
    (row,) = read_examples(tmp_path / "out.jsonl")

    assert (row.id, row.query.text, row.positives[0].text) == ("q0", "asked of", "T both")
    assert row.query.image
    assert row.query.image.read_bytes() == other["bytes"]
    assert row.positives[0].image
    assert row.positives[0].image.read_bytes() == image["bytes"]


def test_an_image_under_another_name_is_not_read_past(tmp_path: Path) -> None:
    image = {"bytes": picture(tmp_path, "red.png", "red"), "path": None}
    for folder, rows in (
        ("corpus", [{"id": "d0", "text": "a page", "page_image": image}]),
        ("queries", [{"id": "q0", "text": "q"}]),
        ("qrels", [{"query-id": "q0", "corpus-id": "d0", "score": 1}]),
    ):
        (tmp_path / "task" / folder).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "task" / folder / "a.parquet")
    with pytest.raises(
        DataError, match="the column 'page_image' holds bytes, and nothing reads it: is it 'image'"
    ):
        convert_vidore(tmp_path / "task", tmp_path / "out.jsonl")


# FlagEmbedding and ms-swift


FLAG = [
    {
        "query": "q0",
        "pos": ["p0", "p1", ""],
        "neg": ["n0", "P0."],
        "pos_scores": [1.0, 2.0, 0.0],
        "prompt": "Find it.",
    },
    {"query": "q1", "pos": ["p0"], "neg": ["n0"], "id": 7, "type": "normal"},
    {"query": " ", "pos": ["p0"], "neg": []},
    {"query": "q2", "pos": []},
]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_flagembedding(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"flag.{suffix}"
    if suffix == "jsonl":
        write_rows(path, FLAG)
    else:
        pq.write_table(pa.Table.from_pylist(FLAG, schema=pa.schema(flag_schema())), path)
    done = convert_flagembedding(path, tmp_path / "out.jsonl", instruction="Else.")
    first, second = read_examples(tmp_path / "out.jsonl")

    assert (first.id, first.instruction, first.query) == (
        f"flag.{suffix}:1",
        "Find it.",
        Side("q0", None),
    )
    assert first.positives == (Side("p0", None), Side("p1", None))
    assert [negative.side.text for negative in first.negatives] == ["n0"]
    assert (second.id, second.instruction) == ("7", "Else.")
    assert (done.written, done.bad) == (2, 0)
    assert (done.counts["skipped: empty query"], done.counts["skipped: no relevant document"]) == (
        1,
        1,
    )
    assert not check(tmp_path / "out.jsonl").wrong


def flag_schema() -> list[tuple[str, pa.DataType]]:
    texts = pa.list_(pa.string())
    return [
        ("query", pa.string()),
        ("pos", texts),
        ("neg", texts),
        ("prompt", pa.string()),
        ("id", pa.int64()),
    ]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_swift(tmp_path: Path) -> None:
    for colour in ("red", "blue", "green"):
        draw(tmp_path / f"media/{colour}.png", colour)

    rows: list[dict[str, Any]] = [
        {
            "messages": [{"role": "system", "content": "Find it."}, *user("<image>What is this?")],
            "images": ["red.png"],
            "positive_messages": [user("<image>"), [{"role": "assistant", "content": "a text"}]],
            "positive_images": [[{"path": "blue.png", "bytes": None}], []],
            "negative_messages": [user("see <image>")],
            "negative_images": [[str(tmp_path / "media/green.png")]],
        },
        {"messages": user("query"), "system": "Other.", "positive_messages": [user("p")]},
        {"messages": user("<image>q"), "positive_messages": [user("p")]},
        {"messages": [*user("q"), *user("q")], "positive_messages": [user("p")]},
        {"messages": user("q"), "image": ["red.png"], "positive_messages": [user("p")]},
        {
            "messages": user("q"),
            "positive_messages": [user("<image>")],
            "positive_images": [["tiff.png"]],
        },
        {
            "messages": user("q"),
            "positive_messages": [user("<image>")],
            "positive_images": [["../../etc/passwd"]],
        },
    ]
    source = write_rows(tmp_path / "swift.jsonl", rows)
    done = convert_swift(
        source, tmp_path / "data/out.jsonl", root=tmp_path / "media", image_mode="link", max_bad=5
    )
    first, second = read_examples(tmp_path / "data/out.jsonl")
    images = tmp_path / "data/images"

    assert (first.instruction, first.query) == (
        "Find it.",
        Side("What is this?", images / "red.png"),
    )
    assert first.positives == (Side(None, images / "blue.png"), Side("a text", None))
    assert [negative.side for negative in first.negatives] == [Side("see", images / "green.png")]
    assert (second.instruction, second.query, second.negatives) == (
        "Other.",
        Side("query", None),
        (),
    )
    assert [sentence.split(": ", 1)[1] for sentence in done.bad_rows] == [
        "messages has 1 <image> and 0 images.",
        "messages has 2 messages beside the system's, and there must be 1.",
        "the row has an unknown field 'image': is it 'images'?",
        "the image 'tiff.png' does not exist.",
        "the image must be a path inside the file's folder, relative and without '..'.",
    ]
    assert not check(tmp_path / "data/out.jsonl", decode=True).wrong


# The commands


def test_a_conversion_ends_with_a_summary_of_its_bad_rows(webqa: Path) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    data_commands.register(app)
    with (webqa / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n" * 30)

    files = [str(webqa / name) for name in ("queries.jsonl", "pool.jsonl", "out.jsonl")]
    done = CliRunner().invoke(app, ["convert", "mbeir", *files, "--root", str(webqa)])
    lines = done.stderr.splitlines()

    assert (done.exit_code, len(lines)) == (0, 21)
    assert lines[0] == "30 bad rows among the source's examples. The first 20:"
    assert lines[1] == f"  {webqa}/queries.jsonl:7: the row has no 'qid'."

    before = written(webqa)
    for more, code in ((["--max-bad", "29"], 1), (["--max-bad", "-1"], 2), (["--task", "T-VD"], 2)):
        assert (
            CliRunner()
            .invoke(app, ["convert", "mbeir", *files, "--root", str(webqa), *more])
            .exit_code
            == code
        )

    assert written(webqa) == before
