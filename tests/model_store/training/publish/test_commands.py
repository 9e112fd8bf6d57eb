"""The whole way as it is typed: publish, measure, promote, and then a name that resolves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from model_store.checkpoint import Checkpoint, resolve
from model_store.commands import evaluate as measuring
from model_store.commands import models
from model_store.commands import publish as publishing
from model_store.evaluation.results import read_results
from tests.model_store.training.colours import write_colours

pytestmark = pytest.mark.slow

APP = typer.Typer()
for room in (models, publishing, measuring):
    room.register(APP)


def run(*arguments: object, **environment: str | None) -> Result:
    return CliRunner().invoke(
        APP, [str(argument) for argument in arguments], env={"RERANK_REGISTRY": None} | environment
    )


def test_publish_measure_promote_resolve(base: Checkpoint, adapter: Path, tmp_path: Path) -> None:
    registry = {
        "RERANK_REGISTRY": str(tmp_path / "registry"),
        "RERANK_MODEL_CACHE": str(tmp_path / "cache"),
    }
    (tmp_path / "figures.json").write_text('{"loss": 0.25}', encoding="utf-8")
    (tmp_path / "about.md").write_text("Reads what **shops** sell.\n", encoding="utf-8")
    told = ("--metrics", tmp_path / "figures.json", "--about", tmp_path / "about.md")
    made = run("publish", base.folder, adapter, tmp_path / "mine", *told, **registry)
    assert made.exit_code == 0, made.output
    card = (tmp_path / "mine" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith(
        "# mine\n\nReads what **shops** sell.\n\n## How it was made\n\nA LoRA adapter on base,"
        " merged"
    )
    assert "merging" in made.stderr
    digest = made.output.partition("@sha256:")[2][:64]

    assert (
        run(
            "checkpoint", f"mine@{digest}", tmp_path / "results.json", "--queries", 3, **registry
        ).exit_code
        == 0
    )
    results = read_results(tmp_path / "results.json")
    assert results.checkpoint == f"sha256:{digest}"
    assert [len(values) for values in results.datasets.values()] == [3] * 9
    assert 0.4 < results.score <= 1  # a random order has 0.23

    promoted = run(
        "models", "promote", "mine", digest, "--evaluation", tmp_path / "results.json", **registry
    )
    assert promoted.exit_code == 0, promoted.output
    checkpoint = resolve(
        "mine@production", registry=registry["RERANK_REGISTRY"], cache=tmp_path / "cache"
    )
    assert checkpoint.digest == resolve(str(tmp_path / "mine")).digest
    assert checkpoint.manifest.lineage["metrics"] == {"loss": 0.25}
    assert (
        json.loads(run("models", "show", "mine@production", **registry).output)["digest"]
        == f"sha256:{digest}"
    )


def test_rows_of_ones_own_decide_a_promotion(
    base: Checkpoint, adapter: Path, tmp_path: Path
) -> None:
    registry = {
        "RERANK_REGISTRY": str(tmp_path / "registry"),
        "RERANK_MODEL_CACHE": str(tmp_path / "cache"),
    }
    rows = write_colours(tmp_path / "data", "dev.jsonl", rows=20)
    for dtype in ("bfloat16", "float32"):
        folder, results = tmp_path / dtype, tmp_path / f"{dtype}.json"
        made = run(
            "publish", base.folder, adapter, folder, "--name", "mine", "--dtype", dtype, **registry
        )
        assert made.exit_code == 0, made.output
        digest = made.output.partition("@sha256:")[2][:64]
        measured = run(
            "checkpoint", f"mine@{digest}", results, "--rows", rows, "--device", "cpu", **registry
        )
        assert measured.exit_code == 0, measured.output
        promoted = run("models", "promote", "mine", digest, "--evaluation", results, **registry)
        assert promoted.exit_code == 0, promoted.output
    assert (
        f"not worse than the promoted version on {read_results(results).benchmark}: ndcg@10"
        in promoted.output
    )
    assert "over 20 queries" in promoted.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gmr-nothing", ".", "out"], "There is no model 'gmr-nothing'"),
        (["gmr-tiny", "nowhere", "out"], "is no LoRA adapter"),
        (
            ["gmr-tiny", ".", "out", "--dtype", "int8"],
            "--dtype is one of float32, bfloat16, float16",
        ),
        (["gmr-tiny", ".", "out", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (
            ["gmr-tiny", ".", "out", "--metrics", "text"],
            "text is not one JSON object of finite numbers",
        ),
        (["gmr-tiny", ".", "out", "--config", "binary"], "binary is no UTF-8 text"),
    ],
)
def test_a_refusal_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text('{"loss": NaN}', encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    refused = run("publish", *arguments)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2 if "--dtype" in said else 1, 1)
    assert said in refused.stderr
    assert not (tmp_path / "out").exists()


def test_results_are_not_written_for_what_is_not_there(tmp_path: Path) -> None:
    refused = run("checkpoint", "gmr-nothing", tmp_path / "results.json")
    assert (refused.exit_code, list(tmp_path.iterdir())) == (1, [])
