"""The measurement of a cascade: which documents count as scored, what a loss is, and when it is
refused; and its folder, in a registry as any version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from model_store.cascades.description import Evidence, KeepRule, Stage
from model_store.cascades.folder import read_cascade
from model_store.checkpoint import resolve
from model_store.evaluation.cascades import (
    CascadeBenchmark,
    ScoredExample,
    StageScorer,
    measure_cascade,
)
from model_store.manifest import CheckpointUnusable
from model_store.registry.storage import open_storage
from model_store.registry.versions import upload
from model_store.synthetic.examples import Example
from model_store.training.publish.cascade import read_draft, refuse_loss, stages_of, write_cascade
from model_store.training.publish.pairs import PublishRefused
from service.cli.main import app
from tests.conftest import TINY
from tests.qwen2_vl import write_qwen2_vl

HALF = KeepRule(share=0.5, at_least=1)
CAPTIONS = CascadeBenchmark(20, ("I-T",))
"""The cell whose queries are the cheapest to generate."""


def stage(model: str, **fields: Any) -> Stage:
    return Stage(model=model, version=f"sha256:{'0' * 64}", **fields)


def scorer(of: Stage, relevant: float, *, operations: float = 1.0) -> StageScorer:
    """Gives the relevant document, which is the first, a score, and the others falling ones from
    0; a prompt has 10 tokens before each document's 5."""

    def score(examples: list[Example]) -> list[ScoredExample]:
        return [
            ScoredExample(
                [relevant, *(-0.1 * number for number in range(len(example.documents) - 1))],
                10,
                [5] * len(example.documents),
            )
            for example in examples
        ]

    return StageScorer(of, score, operations)


def measured(benchmark: CascadeBenchmark, *scorers: StageScorer) -> Evidence:
    return measure_cascade(scorers, benchmark, 0.003)


def test_a_first_stage_that_keeps_the_relevant_document_loses_nothing() -> None:
    small, big = stage("small", keep=HALF), stage("big")
    found = measured(CAPTIONS, scorer(small, 0.05), scorer(big, 9.0, operations=4.0))
    assert (found.cascade, found.last_stage, found.difference) == (1, 1, 0)
    assert (found.low, found.high) == (0, 0)
    assert found.scored == [1, 0.5]
    assert found.tokens == [20 * 110, 20 * 60]
    assert found.last_stage_tokens == 20 * 110
    assert found.saving == pytest.approx(110 * 4 / (110 + 60 * 4))
    assert found.benchmark == "nine-cells-20"
    refuse_loss(found)


def test_a_first_stage_that_drops_the_relevant_document_is_refused_with_the_figures() -> None:
    small, big = stage("small", keep=HALF), stage("big")
    found = measured(CAPTIONS, scorer(small, -9.0), scorer(big, 9.0))
    assert (found.cascade, found.last_stage) == (0, 1)
    assert found.overlap == 0.9, "the relevant one is the only one of the best ten that is missing"
    with pytest.raises(PublishRefused, match=r"100\.00 points, and 0\.30 are allowed"):
        refuse_loss(found)


def test_equal_scores_do_not_favour_the_relevant_document() -> None:
    found = measured(CAPTIONS, scorer(stage("small", keep=HALF), 0.0), scorer(stage("big"), 0.0))
    assert found.last_stage < 1


@pytest.fixture
def published(tmp_path: Path) -> Path:
    tiny = resolve("gmr-tiny")
    draft = tmp_path / "draft.json"
    keep = {"share": 0.5, "at_least": 1}
    described = [
        {"checkpoint": "gmr-tiny", "max_pixels": 12_544, "keep": keep},
        {"checkpoint": "gmr-tiny"},
    ]
    draft.write_text(json.dumps({"stages": described}), encoding="utf-8")
    stages = stages_of(read_draft(draft), [tiny, tiny], "fast", "draft.json")
    evidence = measured(CAPTIONS, *(scorer(each, 0.05) for each in stages))
    write_cascade(tmp_path / "fast", "fast", stages, evidence, tiny)
    return tmp_path / "fast"


def test_a_published_cascade_is_read_as_it_was_written(published: Path) -> None:
    found = read_cascade(published)
    assert found.cascade.name == "fast"
    assert [each.max_pixels for each in found.cascade.stages] == [12_544, None]
    assert {each.version for each in found.cascade.stages} == {
        read_cascade(published).cascade.stages[0].version
    }
    assert "I-T" in (published / "MODEL_CARD.md").read_text(encoding="utf-8")
    with pytest.raises(CheckpointUnusable, match="RERANK_CASCADES"):
        resolve(str(published))
    (published / "cascade.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointUnusable, match="SHA-256 differs"):
        read_cascade(published)


def gmr(*arguments: object, **environment: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env=environment)


def test_a_registry_keeps_a_cascade_as_it_keeps_a_checkpoint(
    published: Path, tmp_path: Path
) -> None:
    registry = str(tmp_path / "registry")
    (tmp_path / "registry").mkdir()
    version = upload(open_storage(registry), published)
    name = f"fast@sha256:{version.digest}"
    where = {"RERANK_REGISTRY": registry, "RERANK_MODEL_CACHE": str(tmp_path / "cache")}
    listed = gmr("models", "list", **where)
    assert f"fast@sha256:{version.digest[:12]}  cascade" in listed.output
    assert "is whole" in gmr("models", "verify", name, **where).output
    pulled = gmr("models", "pull", name, **where).stdout.split()[-1]
    assert read_cascade(Path(pulled)).version == f"sha256:{version.digest}"
    promoted = gmr("models", "promote", "fast", version.digest, **where)
    assert promoted.exit_code == 0, promoted.output


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([{"checkpoint": "gmr-tiny"}], "stages: List should have at least 2 items"),
        ([{"checkpoint": "gmr-tiny"}] * 2, "stage 1 has no keep rule"),
        (
            [
                {"checkpoint": "gmr-tiny", "keep": {"share": 1.0}},
                {"checkpoint": "gmr-tiny", "model": "m"},
            ],
            "stages/0/keep/share: Input should be less than 1",
        ),
        (
            [
                {"checkpoint": "gmr-tiny", "keep": {"share": 0.5, "margin": 1.0, "rank": 5}},
                {"checkpoint": "gmr-tiny"},
            ],
            "keep has either share, or margin and rank",
        ),
        (
            [{"checkpoint": "gmr-tiny", "keep": {"share": 0.5}}, {"checkpoint": "gmr-tiny"}],
            "two stages in a row are the same",
        ),
        ([{"checkpoint": "no-such"}] * 2, "no model 'no-such'"),
        ([{"checkpoint": "gmr-tiny", "kept": 1}] * 2, "stages/0/kept: Extra inputs"),
    ],
)
def test_a_draft_that_is_no_cascade_is_refused_before_anything_is_measured(
    stages: list[dict[str, Any]], sentence: str, tmp_path: Path
) -> None:
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps({"stages": stages}), encoding="utf-8")
    result = gmr("publish", "--cascade", draft, tmp_path / "out")
    assert result.exit_code == 1
    assert sentence in result.output
    assert not (tmp_path / "out").exists()


def test_other_options_of_publish_are_no_options_of_a_cascade(tmp_path: Path) -> None:
    (tmp_path / "draft.json").write_text("{}", encoding="utf-8")
    for extra in (["--unmerged"], ["--dtype", "float32"], ["--cells", "T-X"], [TINY]):
        result = gmr("publish", "--cascade", tmp_path / "draft.json", tmp_path / "out", *extra)
        assert result.exit_code == 2, result.output
    assert gmr("publish", "gmr-tiny").exit_code == 2


def test_a_stage_with_another_network_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = write_qwen2_vl(tmp_path / "MonoQwen2-VL-v0.1")
    draft = tmp_path / "draft.json"
    stages = [
        {"checkpoint": str(folder), "keep": {"share": 0.5}},
        {"checkpoint": "gmr-tiny"},
    ]
    draft.write_text(json.dumps({"stages": stages}), encoding="utf-8")

    result = gmr("publish", "--cascade", draft, tmp_path / "mixed")
    assert result.exit_code == 1
    assert "is a Qwen2VLForConditionalGeneration" in " ".join(result.output.split())
    assert not (tmp_path / "mixed").exists()
