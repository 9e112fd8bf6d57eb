"""A checkpoint is measured on rows as the service would score them, and the gate takes what was
measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.commands.evaluate import register
from model_store.evaluation.gate import compare
from model_store.evaluation.results import ResultsUnusable, read_results
from model_store.golden import GoldenPair
from model_store.manifest import manifest_digest
from model_store.training.benchmark import (
    Measured,
    Rows,
    measure,
    ranked_relevances,
)
from model_store.training.data.rows import Example, Side, read_examples
from model_store.training.publish.adapters import load_base
from model_store.training.publish.pairs import logits_of
from model_store.training.rows_benchmark import query_name
from tests.conftest import TINY
from tests.model_store.training.colours import write_colours
from tests.model_store.training.rows import draw, write_rows

pytestmark = pytest.mark.slow
CHECKPOINT = resolve(str(TINY))
ROWS = 20


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of texts and pictures, with one positive or two."""
    path = write_colours(tmp_path_factory.mktemp("rows"), rows=ROWS, asks="red, and not")
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told[0]["positives"].append({"text": "Any answer.", "image": "red.png"})
    return write_rows(path, told)


@pytest.fixture(scope="module")
def measured(rows: Path) -> Measured:
    return measure(CHECKPOINT, Rows(rows, CHECKPOINT))


def test_rows_rank_as_transformers_scores_their_pairs(rows: Path, measured: Measured) -> None:
    """By the network's own head over the whole vocabulary, a pair at a time, without batches."""
    network = load_base(CHECKPOINT, "cpu")

    def whole(side: Side) -> tuple[object, ...]:
        grouper = Rows(rows, CHECKPOINT).grouper
        picture = (
            ()
            if side.image is None
            else tuple(grouper.group_of(example, [side]).pictures[str(side.image).encode()][None])
        )
        return (*picture, *(() if side.text is None else (side.text,)))

    for number, example in enumerate(read_examples(rows)):
        if number % 6:
            continue
        documents = [*example.positives, *(negative.side for negative in example.negatives)]
        pairs = [
            GoldenPair("", str(example.instruction), whole(example.query), whole(side), 0.0)
            for side in documents
        ]
        scores = logits_of(network, CHECKPOINT, pairs)
        best = scores.index(max(scores))
        assert measured.values["hit@1"][example.id] == float(best < len(example.positives))


def test_values_are_the_metrics_over_a_rows_own_documents(rows: Path, measured: Measured) -> None:
    assert measured.checkpoint == f"sha256:{manifest_digest(TINY)}"
    assert set(measured.kinds.values()) == {"T-I", "T-T", "IT-I", "IT-T"}
    queries = [example.id for example in read_examples(rows)]
    for metric, values in measured.values.items():
        assert list(values) == queries
        assert all(0 <= value <= 1 for value in values.values()), metric
    for query in queries:
        first, fifth, tenth, gain = (
            measured.values[name][query] for name in ("hit@1", "hit@5", "hit@10", "ndcg@10")
        )
        assert first <= fifth <= tenth == 1.0  # no row has more than five documents
        assert gain > 0
    assert 0 < sum(measured.values["hit@1"].values()) < ROWS


def test_a_positive_loses_ties() -> None:
    assert ranked_relevances([1.0, 1.0, 1.0], 1) == [0.0, 0.0, 1.0]
    assert ranked_relevances([2.0, 1.0, 3.0, 1.0], 2) == [0.0, 1.0, 0.0, 1.0]


def test_documents_in_parts_score_as_together(rows: Path, measured: Measured) -> None:
    parts = measure(CHECKPOINT, Rows(rows, CHECKPOINT), documents_at_once=2, batch_tokens=64)
    assert parts.values == measured.values


def test_the_benchmark_is_named_by_what_is_asked(rows: Path, tmp_path: Path) -> None:
    name = Rows(rows, CHECKPOINT).benchmark
    moved = Path(shutil.copytree(rows.parent, tmp_path / "moved")) / "other.jsonl"
    (moved.parent / rows.name).rename(moved)
    assert Rows(moved, CHECKPOINT).benchmark == name
    repainted = Path(shutil.copytree(rows.parent, tmp_path / "repainted")) / rows.name
    draw(repainted.parent / "blue.png", "navy", (112, 112))
    assert Rows(repainted, CHECKPOINT).benchmark != name
    told = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    for change in (
        {"instruction": "Find it."},
        {"query": "another"},
        {"negatives": told[0]["negatives"][:1]},
    ):
        other = write_rows(rows.with_name("changed.jsonl"), [told[0] | change, *told[1:]])
        assert Rows(other, CHECKPOINT).benchmark != name


def test_a_row_without_an_id_is_named_by_its_line() -> None:
    example = Example(
        "dev.jsonl:3", None, Side("q", None), (Side("p", None),), (), "/somewhere/dev.jsonl:3"
    )
    assert query_name(example) == "row 3"


class TestTyped:
    """`gmr eval --rows`."""

    def typed(self, *arguments: object) -> Result:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command("other")(lambda: None)
        register(app)
        return CliRunner().invoke(
            app, ["checkpoint", *map(str, arguments)], env={"RERANK_REGISTRY": None}
        )

    def test_results_go_through_the_gate(
        self, rows: Path, measured: Measured, tmp_path: Path
    ) -> None:
        done = self.typed(TINY, tmp_path / "results.json", "--rows", rows, "--device", "cpu")
        assert done.exit_code == 0, done.output
        mean = sum(measured.values["ndcg@10"].values()) / ROWS
        assert done.stdout.startswith(f"ndcg@10  {mean:.4f}  I")
        assert done.stdout.splitlines()[-1] == f"{ROWS} rows, benchmark {measured.benchmark}"
        results = read_results(tmp_path / "results.json")
        assert results == measured.results("ndcg@10")
        worse = results.model_copy(
            update={"datasets": {"rows": dict.fromkeys(results.datasets["rows"], 0.0)}}
        )
        assert compare(worse, results).worse
        assert not compare(results, worse).worse
        with pytest.raises(ResultsUnusable, match="cannot be compared"):
            compare(measured.results("hit@1"), results)

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (
                {"negatives": []},
                "rows.jsonl:2: there is no negative to rank the positives against.",
            ),
            ({"positives": []}, "rows.jsonl:2: there are 0 positives"),
            ({"query": {"image": "nowhere.png"}}, "does not exist"),
            ({"id": "one"}, "the id 'one' is line 1's already"),
            ({"instruction": "中" * 3000}, "rows.jsonl:2: the instruction alone has more than"),
        ],
    )
    def test_rows_that_cannot_be_ranked_are_named(
        self, tmp_path: Path, row: dict[str, object], said: str
    ) -> None:
        sound = {"id": "one", "query": "q", "positives": ["p"], "negatives": ["n"]}
        path = write_rows(tmp_path / "rows.jsonl", [sound, sound | {"id": "two"} | row])
        refused = self.typed(TINY, tmp_path / "results.json", "--rows", path)
        assert refused.exit_code == 1
        assert said in refused.stderr
        assert not (tmp_path / "results.json").exists()

    def test_what_is_wrong_is_said_before_anything_is_measured(
        self, rows: Path, tmp_path: Path
    ) -> None:
        for output, said in (
            (tmp_path / "no" / "r.json", "No such file or directory."),
            (tmp_path, "Is a directory."),
        ):
            refused = self.typed("gmr-nothing", output, "--rows", rows)
            assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
            assert said in refused.stderr
        both = self.typed(TINY, tmp_path / "r.json", "--rows", rows, "--queries", 3)
        assert (both.exit_code, "not both" in both.stderr) == (2, True)
        nothing = self.typed(
            TINY, tmp_path / "r.json", "--rows", write_rows(tmp_path / "none.jsonl", [])
        )
        assert "there are 0 rows" in nothing.stderr
