"""From a public layout to mined negatives, as people type it; and what is wrong in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from model_store.training.converters import commands as data_commands
from model_store.training.data import read_examples
from model_store.training.negatives import commands as mining_commands
from tests.model_store.training.rows import write_rows, written


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    data_commands.register(app)
    mining_commands.register(app)
    return app


def typed(app: typer.Typer, *arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def passages(folder: Path) -> None:
    (folder / "collection.tsv").write_text("".join(f"{n}\tpassage {n} on topic{n % 7}\n" for n in range(60)), encoding="utf-8")
    (folder / "queries.tsv").write_text("".join(f"q{n}\tpassage on topic{n % 7}, {n}\n" for n in range(40)), encoding="utf-8")
    (folder / "qrels.tsv").write_text("".join(f"q{n}\t0\t{n}\t1\n" for n in range(40)), encoding="utf-8")


def test_from_msmarco_to_mined_rows(app: typer.Typer, tmp_path: Path) -> None:
    passages(tmp_path)
    rows, train, dev, mined = (tmp_path / f"{name}.jsonl" for name in ("rows", "train", "dev", "mined"))
    tables = [part for name in ("collection", "queries", "qrels") for part in (f"--{name}", tmp_path / f"{name}.tsv")]
    done = typed(app, "convert", "msmarco", rows, *tables, "--instruction", "Find it.")
    assert (done.exit_code, done.stdout.splitlines()) == (0, ["60 documents", "40 examples", f"Written to {rows}"])
    done = typed(app, "data", "split", rows, train, dev, "--share", "0.2")
    assert done.exit_code == 0
    kept, held = len(list(read_examples(train))), len(list(read_examples(dev)))
    assert done.stdout.startswith(f"{kept} rows for training, {held} held out;")
    common = ("mine", train, mined, "--corpus", tmp_path / "rows.corpus.jsonl", "--hard", 3, "--top", 20)
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
    rows = write_rows(tmp_path / "rows.jsonl", [{"query": f"q{n}", "positives": [{"image": "none.png"}]} for n in range(30)])
    done = typed(app, "data", "check", rows)
    lines = done.stderr.splitlines()
    assert (done.exit_code, len(lines), lines[-1]) == (1, 21, "30 problems, of which the first are shown.")
    assert lines[4] == f"{rows}:5: positives[0].image 'none.png' does not exist."
    train = write_rows(tmp_path / "train.jsonl", [{"query": "Q 1", "positives": ["p"]}])
    dev = write_rows(tmp_path / "dev.jsonl", [{"query": "q 1.", "positives": ["other"]}])
    done = typed(app, "data", "check", train, "--held-out", dev)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[0] == f"{train}:1: of its queries, one is a held-out query or positive."


MINE = ("mine", "rows.jsonl", "out.jsonl")
WRONG = {
    "Give either --triples, or --collection, --queries and --qrels.": ("convert", "msmarco", "out.jsonl"),
    "A source is TASK/DATASET=FILE, not 'a.jsonl'.": ("data", "mix", "out.jsonl", "--source", "a.jsonl"),
    "There is no retriever 'bm52'": ("mine", "rows.jsonl", "out.jsonl", "--corpus", "c.jsonl", "--retriever", "bm52"),
    "A shard is I/N with I from 0 to N - 1, not '2/2'.": (*MINE, "--corpus", "c.jsonl", "--shard", "2/2"),
    "no.jsonl:1: the file cannot be read": ("mine", "no.jsonl", "out.jsonl", "--corpus", "c.jsonl"),
    "a.png: images must lie inside": (*MINE[:2], "below/out.jsonl", "--corpus", "pictures.jsonl"),
    "rows.jsonl:1: Object contains unknown field `query`": ("mine", "rows.jsonl", "out.jsonl", "--corpus", "rows.jsonl"),
    "there are no .parquet, .jsonl or .jsonl.gz files.": ("convert", "vidore", "empty", "out.jsonl"),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_is_refused_ends_with_one_sentence_and_leaves_nothing(
    app: typer.Typer, tmp_path: Path, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [{"query": "q", "positives": ["p"]}])
    write_rows(tmp_path / "c.jsonl", [{"id": "1", "text": "q"}])
    write_rows(tmp_path / "pictures.jsonl", [{"id": "1", "image": "a.png"}])
    (tmp_path / "empty").mkdir()
    before = written(tmp_path)
    done = typed(app, *WRONG[sentence])
    assert done.exit_code == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert written(tmp_path) == before
