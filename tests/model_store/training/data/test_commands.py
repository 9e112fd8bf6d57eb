"""From a public layout to mined negatives, as people type it; and what is wrong in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from model_store.commands import convert as data_commands
from model_store.commands import mine as mining_commands
from model_store.commands.console import Commands
from model_store.training.data.rows import read_examples
from tests.model_store.training.rows import write_rows, written


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    data_commands.register(app)
    mining_commands.register(app)
    return app


def typed(app: typer.Typer, *arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def passages(folder: Path) -> None:
    (folder / "collection.tsv").write_text(
        "".join(f"{n}\tpassage {n} on topic{n % 7}\n" for n in range(60)), encoding="utf-8"
    )
    (folder / "queries.tsv").write_text(
        "".join(f"q{n}\tpassage on topic{n % 7}, {n}\n" for n in range(40)), encoding="utf-8"
    )
    (folder / "qrels.tsv").write_text(
        "".join(f"q{n}\t0\t{n}\t1\n" for n in range(40)), encoding="utf-8"
    )


def test_from_msmarco_to_mined_rows(app: typer.Typer, tmp_path: Path) -> None:
    passages(tmp_path)
    rows, train, dev, mined = (
        tmp_path / f"{name}.jsonl" for name in ("rows", "train", "dev", "mined")
    )
    tables: list[object] = []
    for name in ("collection", "queries", "qrels"):
        tables += [f"--{name}", tmp_path / f"{name}.tsv"]
    done = typed(app, "convert", "msmarco", rows, *tables, "--instruction", "Find it.")

    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        ["60 documents", "40 examples", f"Written to {rows}"],
    )

    done = typed(app, "data", "split", rows, train, dev, "--share", "0.2")

    assert done.exit_code == 0

    kept, held = len(list(read_examples(train))), len(list(read_examples(dev)))

    assert done.stdout.startswith(f"{kept} rows for training, {held} held out;")

    common = (
        "mine",
        train,
        mined,
        "--corpus",
        tmp_path / "rows.corpus.jsonl",
        "--hard",
        3,
        "--top",
        20,
    )
    done = typed(app, *common, "--shard", "1/2")

    assert (done.exit_code, mined.exists()) == (0, False)
    assert "Shard 1/2 is done" in done.stdout
    assert "No margin is given" in done.stderr

    done = typed(app, *common)

    assert done.exit_code == 0
    assert f"{3 * kept} hard negatives" in done.stdout
    assert "It was mined before." in typed(app, *common).stdout
    assert "No margin" not in typed(app, *common, "--margin", "0.5").stderr

    done = typed(app, "data", "check", mined)

    assert (done.exit_code, done.stderr) == (0, "")


def test_problems_are_listed_and_end_with_one(app: typer.Typer, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"query": f"q{n}", "positives": [{"image": "none.png"}]} for n in range(30)],
    )
    done = typed(app, "data", "check", rows)
    lines = done.stderr.splitlines()

    assert (done.exit_code, len(lines), lines[-1]) == (
        1,
        21,
        "30 problems, of which the first are shown.",
    )
    assert lines[4] == f"{rows}:5: positives[0].image 'none.png' does not exist."

    train = write_rows(tmp_path / "train.jsonl", [{"query": "Q 1", "positives": ["p"]}])
    dev = write_rows(tmp_path / "dev.jsonl", [{"query": "q 1.", "positives": ["other"]}])
    done = typed(app, "data", "check", train, "--held-out", dev)

    assert done.exit_code == 1
    assert (
        done.stderr.splitlines()[0]
        == f"{train}:1: of its queries, one is a held-out query or positive."
    )


def test_negatives_that_are_held_out_are_said_to_be_mined_too_late(
    app: typer.Typer, tmp_path: Path
) -> None:
    train = write_rows(
        tmp_path / "train.jsonl", [{"query": "q", "positives": ["p"], "negatives": ["Held out."]}]
    )
    dev = write_rows(tmp_path / "dev.jsonl", [{"query": "other", "positives": ["held out"]}])
    done = typed(app, "data", "check", train, "--held-out", dev)

    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        (
            "Held-out documents are among the negatives: `gmr data split` takes them out, so mine"
            " before it, not after."
        ),
        f"{train}:1: of its negatives, one is a held-out query or positive.",
        "1 problem.",
    ]


MINE = ("mine", "rows.jsonl", "out.jsonl", "--corpus", "c.jsonl")
SPLIT = ("data", "split", "rows.jsonl")
USAGE = {
    "Give either --triples, or --collection, --queries and --qrels.": (
        "convert",
        "msmarco",
        "out.jsonl",
    ),
    "A --source is TASK/DATASET=FILE, not 'a.jsonl'.": (
        "data",
        "mix",
        "out.jsonl",
        "--source",
        "a.jsonl",
    ),
    "There is no retriever 'bm52'": (*MINE, "--retriever", "bm52"),
    "The retriever gme needs --model.": (*MINE, "--retriever", "gme"),
    "A --shard is I/N with I from 0 to N - 1": (*MINE, "--shard", "2/2"),
    "N up to 1,000,000, not '1/9999999'": (*MINE, "--shard", "1/9999999"),
    "not '\u0662/\u0663'": (*MINE, "--shard", "\u0662/\u0663"),
    "--hard 0 and --random 0 ask for no negative at all.": (*MINE, "--hard", "0", "--random", "0"),
    "--retriever none finds nothing: it needs --hard 0": (*MINE, "--retriever", "none"),
}
WRONG = {
    "no.jsonl:1: the file cannot be read": ("mine", "no.jsonl", "out.jsonl", "--corpus", "c.jsonl"),
    "a.png: the image lies outside below": (
        *(
            "mine",
            "rows.jsonl",
            "below/out.jsonl",
            "--corpus",
            "pictures.jsonl",
            "--images",
            "reference",
        ),
    ),
    "pictures/a.png: the image does not exist": (
        "mine",
        "rows.jsonl",
        "out.jsonl",
        "--corpus",
        "pictures.jsonl",
    ),
    "rows2.jsonl:1: the row has an unknown field 'query'": (
        "mine",
        "rows.jsonl",
        "out.jsonl",
        "--corpus",
        "rows2.jsonl",
    ),
    "nowhere: it does not exist.": ("convert", "vidore", "nowhere", "out.jsonl"),
    "there are no .parquet, .jsonl or .jsonl.gz files.": (
        "convert",
        "vidore",
        "empty",
        "out.jsonl",
    ),
    "empty: it is a folder; give the name of a file.": (*SPLIT, "empty", "dev.jsonl"),
    "rows.jsonl: it is read or written by this command already": (
        *SPLIT,
        "rows.jsonl",
        "dev.jsonl",
    ),
    "dev.jsonl: it is read or written by this command already": (
        *SPLIT,
        "dev.jsonl",
        "./dev.jsonl",
    ),
    "c.jsonl/out.jsonl: it cannot be written (File exists).": (
        *MINE[:2],
        "c.jsonl/out.jsonl",
        *MINE[3:],
    ),
    "c.jsonl/rows: it cannot be written": ("data", "sample", "c.jsonl/rows"),
    "empty2: the folder is not empty": ("data", "sample", "empty2"),
}


def refused(app: typer.Typer, folder: Path, *arguments: str) -> Result:
    """The result of a command that must leave every file as it was."""
    write_rows(folder / "rows.jsonl", [{"query": "q", "positives": ["p"]}])
    write_rows(folder / "rows2.jsonl", [{"query": "q", "positives": ["p"]}])
    write_rows(folder / "c.jsonl", [{"id": "1", "text": "q"}])
    write_rows(folder / "pictures.jsonl", [{"id": "1", "image": "pictures/a.png"}])
    write_rows(folder / "empty2/some.jsonl", [])
    (folder / "empty").mkdir()
    before = written(folder)
    done = typed(app, *arguments)

    assert written(folder) == before
    return done


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_done_ends_with_one_sentence_and_1_and_leaves_nothing(
    app: typer.Typer, tmp_path: Path, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = refused(app, tmp_path, *WRONG[sentence])
    (line,) = done.stderr.splitlines()

    assert sentence in line
    assert done.exit_code == 1


@pytest.mark.parametrize("sentence", USAGE)
def test_wrong_usage_ends_with_one_sentence_and_2(
    app: typer.Typer, tmp_path: Path, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = refused(app, tmp_path, *USAGE[sentence])
    (line,) = done.stderr.splitlines()

    assert sentence in line
    assert done.exit_code == 2


@pytest.mark.parametrize(
    "option",
    [
        (*MINE, "--seed", "9223372036854775808"),
        (*MINE, "--seed", "-1"),
        (*MINE, "--top", "1001"),
        (*MINE, "--margin", "nan"),
        (*MINE, "--relative-margin", "inf"),
        (*MINE, "--ray", "1000000"),
        (*MINE, "--ray", "1", "--gpus", "nan"),
        (*SPLIT, "a.jsonl", "b.jsonl", "--share", "nan"),
        (*SPLIT, "a.jsonl", "b.jsonl", "--seed", "99999999999999999999"),
        ("data", "mix", "o.jsonl", "--source", "T-T/WebQA=rows.jsonl", "--scale", "1e308"),
        ("data", "mix", "o.jsonl", "--source", "T-T/WebQA=rows.jsonl", "--scale", "nan"),
    ],
)
def test_numbers_beyond_their_bounds_are_wrong_usage(
    app: typer.Typer, tmp_path: Path, option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(app, tmp_path, *option).exit_code == 2


def test_a_library_that_is_missing_is_named_with_what_installs_it(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    for module in ("model_store.training.negatives.bm25", "model_store.retrieval.words"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.chdir(tmp_path)
    done = refused(app, tmp_path, *MINE)

    assert done.stderr.splitlines()[-1] == "gmr mine needs bm25s: pip install 'gmr-rerank[train]'."
    assert done.exit_code == 1
