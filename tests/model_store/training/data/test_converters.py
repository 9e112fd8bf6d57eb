"""Small files of exactly the public layouts become rows and a corpus, once, whole, and the same
after an interruption."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_store.errors import DataError
from model_store.training.data.converters.judgements import Judgements
from model_store.training.data.converters.mbeir import convert_mbeir
from model_store.training.data.converters.msmarco import convert_msmarco, convert_triples
from model_store.training.data.converters.vidore import convert_pages, convert_vidore
from model_store.training.data.corpus import Corpus
from model_store.training.data.image_files import ImageMode
from model_store.training.data.rows import Example, Side, read_examples
from model_store.training.data.validation import check
from tests.model_store.training.rows import draw, write_rows

PROMPTS = (
    "query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2\tprompt_3\tprompt_4\n"
    "text\timage\tvisualnews\t0\tFind the image.\tShow the picture.\n"
    "image,text\timage,text\toven\t6\tFind a pair.\t\t\t\n"
)


@pytest.fixture
def mbeir(tmp_path: Path) -> Path:
    root = tmp_path / "M-BEIR"
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        draw(root / f"mbeir_images/visualnews/{name}.jpg", colour)

    pool: list[dict[str, Any]] = [
        {
            "did": f"0:{number}",
            "txt": None,
            "img_path": f"mbeir_images/visualnews/{name}.jpg",
            "modality": "image",
            "src_content": None,
        }
        for number, name in enumerate("abc")
    ]
    pool += [
        {
            "did": "6:9",
            "txt": "A tower.",
            "img_path": "mbeir_images/visualnews/a.jpg",
            "modality": "image,text",
        }
    ]
    pool += [{"did": "6:10", "txt": " ", "img_path": None, "modality": "text"}]
    write_rows(root / "pool.jsonl", pool)
    query = {
        "query_txt": "a red page",
        "query_img_path": None,
        "query_modality": "text",
        "query_src_content": None,
        "task_id": 0,
    }
    rows: list[dict[str, Any]] = [
        {"qid": "0:1", **query, "pos_cand_list": ["0:0"], "neg_cand_list": ["0:1", "0:0", "0:2"]},
        {
            "qid": "0:2",
            **query,
            "query_txt": "blue",
            "pos_cand_list": ["0:1", "0:2"],
            "neg_cand_list": [],
        },
        {"qid": "0:3", **query, "pos_cand_list": []},
        {
            "qid": "6:1",
            "query_txt": "What is it?",
            "query_img_path": "mbeir_images/visualnews/c.jpg",
            "query_modality": "image,text",
            "pos_cand_list": ["6:9"],
            "task_id": 8,
        },
    ]
    write_rows(root / "query.jsonl", rows)
    (root / "query_instructions.tsv").write_text(PROMPTS, encoding="utf-8")
    return root


def test_mbeir(mbeir: Path) -> None:
    out = mbeir / "visualnews.jsonl"
    table = mbeir / "query_instructions.tsv"
    documents, examples = convert_mbeir(
        mbeir / "query.jsonl", mbeir / "pool.jsonl", out, root=mbeir, instructions=table
    )

    assert (documents.written, +documents.counts) == (4, {"skipped: empty candidate": 1})
    assert (examples.written, +examples.counts) == (3, {"skipped: no relevant document": 1})

    first, second, third = read_examples(out)
    image = mbeir / "mbeir_images/visualnews"

    assert (first.id, first.query, first.positives) == (
        "0:1",
        Side("a red page", None),
        (Side(None, image / "a.jpg"),),
    )
    assert [(negative.side.image, negative.kind) for negative in first.negatives] == [
        (image / "b.jpg", "hard"),
        (image / "c.jpg", "hard"),
    ]
    assert {first.instruction, second.instruction} <= {"Find the image.", "Show the picture."}
    assert (third.instruction, third.query) == (
        "Find a pair.",
        Side("What is it?", image / "c.jpg"),
    )
    assert third.positives == (Side("A tower.", image / "a.jpg"),)
    assert not check(out).wrong

    corpus = Corpus(mbeir / "visualnews.corpus.jsonl")

    assert [document.id for document in corpus] == ["0:0", "0:1", "0:2", "6:9"]


@pytest.mark.parametrize("image_mode", ["copy", "link"])
def test_mbeir_with_pictures_elsewhere(mbeir: Path, tmp_path: Path, image_mode: ImageMode) -> None:
    out = tmp_path / "rows" / "visualnews.jsonl"
    convert_mbeir(
        mbeir / "query.jsonl", mbeir / "pool.jsonl", out, root=mbeir, image_mode=image_mode
    )

    assert not check(out, decode=True).wrong

    picture = next(iter(read_examples(out))).positives[0].image

    assert picture == tmp_path / "rows/images/mbeir_images/visualnews/a.jpg"
    assert picture.is_symlink() == (image_mode == "link")
    assert picture.read_bytes() == (mbeir / "mbeir_images/visualnews/a.jpg").read_bytes()


@pytest.mark.parametrize(
    ("file", "row", "sentence"),
    [
        (
            "query.jsonl",
            {"qid": "0:9", "query_txt": "q", "query_modality": "text", "pos_cand_list": ["0:77"]},
            "the document '0:77' is not in",
        ),
        ("query.jsonl", {"qid": "0:9", "query_txt": "q"}, "the row has no 'pos_cand_list'."),
        (
            "query.jsonl",
            {"qid": "0:9", "query_txt": "q", "query_image_path": "a.jpg", "pos_cand_list": ["0:0"]},
            "the row has an unknown field 'query_image_path': is it 'query_img_path'?",
        ),
        (
            "query.jsonl",
            {
                "qid": "0:9",
                "query_txt": "q",
                "query_modality": "image,text",
                "pos_cand_list": ["0:0"],
            },
            "its modality is 'image,text', and there is no image.",
        ),
        (
            "pool.jsonl",
            {"did": "0:9", "txt": "t", "modality": "image,text"},
            "and there is no image.",
        ),
        (
            "pool.jsonl",
            {"did": "0:9", "img_path": "no.jpg", "modality": "image"},
            "the image 'no.jpg' does not exist.",
        ),
        (
            "query.jsonl",
            {"qid": "4:9", "query_txt": "q", "query_modality": "text", "pos_cand_list": ["0:0"]},
            "in data set 4",
        ),
        (
            "pool.jsonl",
            {"did": "0:9", "img_path": "../../etc/passwd"},
            "the image must be a path inside",
        ),
        ("pool.jsonl", {"did": 9, "txt": "t"}, "did must be a text, not a number."),
    ],
)
def test_a_wrong_row_of_mbeir_is_named(
    mbeir: Path, file: str, row: dict[str, Any], sentence: str
) -> None:
    with (mbeir / file).open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row) + "\n")

    last = len((mbeir / file).read_text(encoding="utf-8").splitlines())
    table = mbeir / "query_instructions.tsv"

    with pytest.raises(DataError, match=rf"{file}:{last}: ") as raised:
        convert_mbeir(
            mbeir / "query.jsonl",
            mbeir / "pool.jsonl",
            mbeir / "out.jsonl",
            root=mbeir,
            instructions=table,
        )
    assert sentence in str(raised.value)
    assert not (mbeir / "out.jsonl").exists()


def test_pictures_that_rows_cannot_name_or_that_are_missing_are_refused(
    mbeir: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the image lies outside"):
        convert_mbeir(
            mbeir / "query.jsonl", mbeir / "pool.jsonl", tmp_path / "rows/out.jsonl", root=mbeir
        )
    (mbeir / "mbeir_images/visualnews/b.jpg").unlink()
    with pytest.raises(DataError, match=r"pool\.jsonl:2: the image '.*b\.jpg' does not exist"):
        convert_mbeir(
            mbeir / "query.jsonl",
            mbeir / "pool.jsonl",
            tmp_path / "copies/out.jsonl",
            root=mbeir,
            image_mode="copy",
        )


@pytest.fixture
def marco(tmp_path: Path) -> Path:
    folder = tmp_path / "marco"
    folder.mkdir()
    (folder / "collection.tsv").write_text(
        "".join(f'{n}\tPassage "{n}" of ünits\n' for n in range(30)), encoding="utf-8"
    )
    (folder / "queries.train.tsv").write_text(
        "".join(f"{100 + n}\tquestion {n}\n" for n in range(20)), encoding="utf-8"
    )
    qrels = (
        "".join(f"{100 + n}\t0\t{n}\t1\n" for n in range(0, 20, 2)) + "100\t0\t7\t1\n102\t0\t8\t0\n"
    )
    (folder / "qrels.train.tsv").write_text(qrels, encoding="utf-8")
    return folder


def from_marco(folder: Path, out: Path) -> list[Example]:
    sources = (folder / name for name in ("collection.tsv", "queries.train.tsv", "qrels.train.tsv"))
    convert_msmarco(*sources, out, instruction="Find it.")
    return list(read_examples(out))


def test_msmarco(marco: Path) -> None:
    examples = from_marco(marco, marco / "train.jsonl")
    assert [example.id for example in examples] == [f"{100 + n}" for n in range(0, 20, 2)]

    first, second = examples[:2]

    assert (first.instruction, first.query) == ("Find it.", Side("question 0", None))
    assert first.positives == (
        Side('Passage "0" of ünits', None),
        Side('Passage "7" of ünits', None),
    )
    assert second.positives == (Side('Passage "2" of ünits', None),)

    report = json.loads((marco / "train.jsonl.report.json").read_text(encoding="utf-8"))

    assert (report["written"], report["counts"]["skipped: no relevant document"]) == (10, 10)


def test_msmarco_triples(tmp_path: Path) -> None:
    triples = tmp_path / "triples.tsv"
    triples.write_text("q1\tyes\tno\nq1\tyes\tyes\nq2\tja\tnein\n", encoding="utf-8")
    convert_triples(triples, tmp_path / "out.jsonl")
    rows = [
        (row.query.text, row.positives[0].text, row.negatives[0].side.text)
        for row in read_examples(tmp_path / "out.jsonl")
    ]

    assert rows == [("q1", "yes", "no"), ("q2", "ja", "nein")]

    triples.write_text("q1\tyes\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"triples\.tsv:1: 2 cells, and there must be 3"):
        convert_triples(triples, tmp_path / "other.jsonl")


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        ("collection.tsv", "99\ta\tb", "31: 3 cells, and there must be 2"),
        ("qrels.train.tsv", "100\t0\t7\tyes", "13: the grade 'yes' is no number"),
        ("qrels.train.tsv", "101\t0\t77\t1", "queries.train.tsv:2: the document '77' is not in"),
    ],
)
def test_a_wrong_row_of_msmarco_is_named(marco: Path, file: str, line: str, sentence: str) -> None:
    with (marco / file).open("a", encoding="utf-8") as rows:
        rows.write(line + "\n")
    with pytest.raises(DataError) as raised:
        from_marco(marco, marco / "train.jsonl")
    assert sentence in str(raised.value)


def test_judgements_beyond_the_bound_are_refused() -> None:
    judgements = Judgements(limit=10)
    for number in range(10):
        judgements.add("q", f"d{number}", f"qrels.tsv:{number + 1}")
    with pytest.raises(DataError, match=r"qrels\.tsv:11: there are more than 10 judgements"):
        judgements.add("q", "d10", "qrels.tsv:11")


def test_what_was_converted_is_not_converted_again_and_not_written_over(marco: Path) -> None:
    out = marco / "train.jsonl"
    examples = from_marco(marco, out)
    out.write_text(out.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")

    assert from_marco(marco, out) == examples[:1]

    with (marco / "queries.train.tsv").open("a", encoding="utf-8") as queries:
        queries.write("999\tone more\n")

    with pytest.raises(DataError, match="describes another conversion"):
        from_marco(marco, out)


def pictures(tmp_path: Path) -> list[bytes]:
    return [
        draw(tmp_path / f"drawn/{colour}.png", colour).read_bytes()
        for colour in ("red", "blue", "red")
    ]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_rows(path, [as_json_row(row) for row in rows])


def as_json_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: as_json(cell) for name, cell in row.items()}


def as_json(cell: object) -> object:
    return base64.b64encode(cell["bytes"]).decode() if isinstance(cell, dict) else cell


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_vidore(tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / "vidore", tmp_path / "rows/docs.jsonl"
    pages = [
        {"corpus-id": number, "image": {"bytes": data, "path": None}, "doc-id": "d"}
        for number, data in enumerate(pictures(tmp_path))
    ]
    write_table(source / f"corpus/test-00000-of-00001.{suffix}", pages)
    questions = [
        {
            "query-id": number,
            "query": f"question {number}?",
            "language": "english" if number else "french",
        }
        for number in range(3)
    ]
    write_table(source / f"queries/test-00000-of-00001.{suffix}", questions)
    judged = [
        {"query-id": 1, "corpus-id": 0, "score": 2},
        {"query-id": 1, "corpus-id": 1, "score": 1},
        {"query-id": 2, "corpus-id": 2, "score": 0},
    ]
    write_table(source / f"qrels/test-00000-of-00001.{suffix}", judged)
    documents, examples = convert_vidore(
        source, out, instruction="Find a page.", language="english"
    )

    assert documents.written == 3
    assert (examples.written, +examples.counts) == (
        1,
        {"skipped: another language": 1, "skipped: no relevant document": 1},
    )

    (example,) = read_examples(out)

    assert (example.id, example.query.text, example.instruction, len(example.positives)) == (
        "1",
        "question 1?",
        "Find a page.",
        2,
    )
    assert [side.image.read_bytes() for side in example.positives if side.image] == pictures(
        tmp_path
    )[:2]
    assert not check(out).wrong
    assert len(list((tmp_path / "rows/images").rglob("*.png"))) == 2  # equal pages are one file


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_pages_with_their_questions(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"query": f"question {number}?", "image": {"bytes": data, "path": "p.png"}}
        for number, data in enumerate(pictures(tmp_path))
    ]
    write_table(tmp_path / f"train/part-0.{suffix}", [*rows, {**rows[0], "query": None}])
    documents, examples = convert_pages(tmp_path / "train", tmp_path / "train.jsonl")

    assert (documents.written, examples.written, +examples.counts) == (
        2,
        3,
        {"skipped: empty query": 1},
    )

    first, second, third = read_examples(tmp_path / "train.jsonl")

    assert first.positives == third.positives != second.positives
    assert first.id == f"part-0.{suffix}:1"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"corpus-id": 5, "image": "bm90IGFuIGltYWdl"},
            "the image cannot be read as PNG, JPEG, WEBP",
        ),
        ({"corpus-id": 5, "image": "???"}, "the image is no base64"),
        ({"corpus-id": 5}, "there is no image"),
        ({"image": "bm90IGFuIGltYWdl"}, "there is no 'corpus-id'"),
    ],
)
def test_a_wrong_row_of_vidore_is_named(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    for name in ("queries", "qrels"):
        write_rows(
            tmp_path / f"vidore/{name}/a.jsonl", [{"query-id": 1, "query": "q", "corpus-id": 5}]
        )

    if "corpus-id" not in row:
        row["image"] = base64.b64encode(pictures(tmp_path)[0]).decode()
    write_rows(tmp_path / "vidore/corpus/a.jsonl", [row])

    with pytest.raises(DataError, match=r"corpus/a\.jsonl:1: ") as raised:
        convert_vidore(tmp_path / "vidore", tmp_path / "out.jsonl")
    assert sentence in str(raised.value)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train\.parquet:1: the parquet file cannot be read"):
        convert_pages(tmp_path / "train.parquet", tmp_path / "out.jsonl")
