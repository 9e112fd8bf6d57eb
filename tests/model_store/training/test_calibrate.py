"""`gmr calibrate`: a new version with the same scores, or one sentence and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from model_store.calibration.description import BINS
from model_store.checkpoint import Checkpoint, resolve
from model_store.commands import calibrate, models
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    digest_files,
    manifest_digest,
    read_manifest,
    write_manifest,
)
from tests.conftest import TINY
from tests.model_store.training.judged_files import OTHER, write_judged
from tests.model_store.training.rows import write_rows

pytestmark = pytest.mark.slow
DEFAULT = resolve(str(TINY)).manifest.default_instruction


def gmr(*arguments: object) -> Result:
    app = typer.Typer()
    calibrate.register(app)
    models.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("rows") / "rows.jsonl", 24, others=20)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def calibrated(rows: Path, registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gmr-tiny with maps of two instructions, in a folder and in a registry."""
    folder = tmp_path_factory.mktemp("calibrated") / "new"
    diagram = folder.with_name("diagram.png")
    done = gmr(
        *("calibrate", TINY, rows, "--output", folder, "--registry", registry),
        *("--diagram", diagram),
    )
    assert done.exit_code == 0, done.output
    assert "probability (" in done.stdout
    with Image.open(diagram) as picture:
        assert picture.format == "PNG"
    return folder


def opened(folder: Path) -> Checkpoint:
    return resolve(str(folder))


def test_a_new_version_has_the_scores_of_the_old_one(calibrated: Path) -> None:
    old, new = resolve(str(TINY)), opened(calibrated)
    assert new.digest == old.digest
    assert new.name == old.name
    assert new.manifest.files == old.manifest.files
    assert manifest_digest(calibrated) != manifest_digest(TINY)


def test_the_manifest_has_maps_and_the_evidence_for_them(calibrated: Path) -> None:
    found = opened(calibrated).calibration
    assert found
    assert found.model == opened(calibrated).digest
    assert {each.instruction: each.evidence.queries for each in found.maps} == {
        DEFAULT: 24,
        OTHER: 20,
    }
    evidence = found.maps[0].evidence
    assert (evidence.relevant, evidence.irrelevant, evidence.relevant_share) == (24, 72, 0.25)
    assert not evidence.weighted
    assert evidence.uncalibrated
    assert len(evidence.bins) == BINS
    assert sum(each.pairs for each in evidence.bins) == 96


def test_a_registry_keeps_verifies_and_promotes_it(calibrated: Path, registry: Path) -> None:
    digest = manifest_digest(calibrated)
    name = f"gmr-tiny@sha256:{digest}"
    assert gmr("models", "verify", name, "--registry", registry).exit_code == 0
    done = gmr("models", "promote", "gmr-tiny", digest, "--registry", registry)
    assert done.exit_code == 0, done.output
    shown = gmr("models", "show", "gmr-tiny@production", "--registry", registry)
    assert len(json.loads(shown.stdout)["manifest"]["lineage"]["calibration"]["maps"]) == 2


def test_a_manifest_that_knows_no_calibration_reads_it(calibrated: Path) -> None:
    """Releases before calibrations read the same fields, and compute the same digest."""
    stated = json.loads((calibrated / MANIFEST).read_text(encoding="utf-8"))
    before = json.loads((TINY / MANIFEST).read_text(encoding="utf-8"))
    assert stated.keys() == before.keys()
    del stated["lineage"], before["lineage"]
    assert stated == before


def test_instructions_of_other_rows_keep_their_maps(calibrated: Path, tmp_path: Path) -> None:
    rows = write_judged(tmp_path / "rows.jsonl", 0, others=22)
    done = gmr("calibrate", calibrated, rows, "--output", tmp_path / "new", "--share", 0.1)
    assert done.exit_code == 0, done.output
    assert "probability as published" in done.stdout

    first, second = opened(calibrated).calibration, opened(tmp_path / "new").calibration
    assert first
    assert second
    assert first.maps[0] == second.maps[0]
    evidence = second.maps[1].evidence
    assert evidence.queries == 22
    assert evidence.weighted
    assert evidence.relevant_share == pytest.approx(0.1)


def changed(calibrated: Path, target: Path) -> Path:
    """The calibrated folder with another file, and a manifest that has its digest."""
    shutil.copytree(calibrated, target)
    manifest = read_manifest(calibrated)
    assert manifest
    card = target / "MODEL_CARD.md"
    card.write_text("Trained once more.", encoding="utf-8")
    files = manifest.files | digest_files(target, [card.name])
    (target / MANIFEST).unlink()
    write_manifest(target, manifest.model_copy(update={"files": files}))
    return target


def test_a_changed_model_cannot_keep_a_calibration(
    calibrated: Path, registry: Path, tmp_path: Path
) -> None:
    folder = changed(calibrated, tmp_path / "other")
    sentence = "its calibration was fitted to another model's scores"
    with pytest.raises(CheckpointUnusable, match=sentence):
        opened(folder)
    refused = gmr("models", "verify", folder)
    assert refused.exit_code == 1
    assert sentence in refused.output


def test_a_calibration_of_another_prompt_is_refused(calibrated: Path) -> None:
    """The manifest alone cannot tell: the prompt is the family's."""
    checkpoint = opened(calibrated)
    with pytest.raises(CheckpointUnusable, match="another model's scores"):
        _ = checkpoint.with_template("spaced").calibration


def test_a_damaged_map_makes_the_manifest_invalid(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(calibrated, folder)
    stated = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    stated["lineage"]["calibration"]["maps"][0]["map"] = {
        "kind": "isotonic",
        "scores": [0, 1],
        "probabilities": [0.9, 0.1],
    }
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(CheckpointUnusable, match="not a valid manifest"):
        opened(folder)


def test_without_output_figures_are_printed_and_nothing_is_written(
    rows: Path, tmp_path: Path
) -> None:
    before = set(rows.parent.iterdir())
    done = gmr("calibrate", TINY, rows, "--instruction", OTHER)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{OTHER}: 20 queries, 80 pairs, 25.00% relevant")
    assert "Nothing was written" in done.stdout
    assert set(rows.parent.iterdir()) == before


def refused(output: Path, *arguments: object, code: int = 1) -> str:
    """The sentence of a refusal that leaves nothing behind."""
    done = gmr("calibrate", *arguments, "--output", output)
    assert done.exit_code == code, done.output
    assert list(output.parent.glob(f"*{output.name}*")) == []
    return done.output.strip()


def test_rows_that_are_too_few_are_refused(rows: Path, tmp_path: Path) -> None:
    few = write_judged(tmp_path / "few.jsonl", 24, others=19)
    sentence = refused(tmp_path / "new", TINY, few)
    assert "'Find a text.' has 19 queries with a relevant document and 19" in sentence
    assert "at least 20" in sentence

    told = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()[:24]]
    relevant_alone = write_rows(tmp_path / "one.jsonl", [row | {"negatives": []} for row in told])
    sentence = refused(tmp_path / "new", TINY, relevant_alone)
    assert "24 queries with a relevant document and 0 with an irrelevant one" in sentence


def test_an_instruction_that_no_row_has_is_refused(rows: Path, tmp_path: Path) -> None:
    sentence = refused(tmp_path / "new", TINY, rows, "--instruction", "Find nothing.")
    assert sentence == f"{rows}: no query has the instruction 'Find nothing.'."


def test_broken_rows_are_refused_by_their_lines(rows: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(rows.read_text(encoding="utf-8") + '{"query": "q"}\n', encoding="utf-8")
    assert f"{broken}:45" in refused(tmp_path / "new", TINY, broken)
    assert "cannot be read" in refused(tmp_path / "new", TINY, tmp_path / "absent.jsonl")


def test_a_model_without_a_manifest_is_refused(rows: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(TINY, foreign)
    (foreign / MANIFEST).unlink()
    shutil.rmtree(foreign / "golden")
    (foreign / "golden.json").unlink()
    sentence = refused(tmp_path / "new", foreign, rows)
    assert sentence.startswith("foreign has no manifest.json, which keeps a calibration")


def test_a_folder_that_is_there_is_never_written(rows: Path, tmp_path: Path) -> None:
    done = gmr("calibrate", TINY, rows, "--output", tmp_path)
    assert done.exit_code == 1
    assert "is there already" in done.output


def test_wrong_options_are_wrong_usage(rows: Path, tmp_path: Path) -> None:
    refused(tmp_path / "new", TINY, rows, "--share", "1", code=2)
    refused(tmp_path / "new", TINY, rows, "--share", "nan", code=2)
    refused(tmp_path / "new", TINY, rows, "--diagram", tmp_path / "a.jpg", code=2)
