"""A calibrated version of gmr-tiny, promoted in a registry and served from there."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console
from scipy.special import expit
from typer.testing import CliRunner

from model_store.calibration.description import Calibration, PlattMap
from model_store.calibration.fitting import probabilities
from model_store.calibration.instruction_map import map_of
from model_store.checkpoint import resolve
from model_store.manifest import manifest_digest
from model_store.registry.channels import promote
from model_store.registry.storage import open_storage
from model_store.registry.versions import upload
from model_store.training.publish.calibrated import calibration_of, write_calibrated
from service.cli.client.output import print_table
from service.cli.documents.items import Document
from service.cli.main import app
from tests.conftest import CALM, TINY, free_port, running
from tests.model_store.calibration.judged import drawn

pytestmark = pytest.mark.slow
DOCUMENTS = ["Sort a list.", "Close the file.", "Open a door.", "A list, in order.", "Nothing."]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    """A registry whose production version of gmr-tiny is calibrated, and its calibration."""
    checkpoint = resolve(str(TINY))
    pairs = drawn(lambda scores: np.where(scores < 0, 0.1, expit(scores)), 200)
    fitted = map_of(
        checkpoint.manifest.default_instruction,
        pairs,
        rows="0" * 64,
        unfitted=PlattMap(slope=1, intercept=0),
        weighted=False,
        seed=0,
    )
    calibration = calibration_of(checkpoint, [fitted])

    root = tmp_path_factory.mktemp("calibrated")
    write_calibrated(checkpoint, calibration, root / "folder")
    storage = open_storage(str(root / "registry"))
    version = upload(storage, root / "folder")
    assert version.digest == manifest_digest(root / "folder")
    promote(storage, version.name, "production", version.digest, after=None)
    return root, calibration


@pytest.fixture(scope="module")
def client(calibrated: tuple[Path, Calibration]) -> Iterator[httpx.Client]:
    root, _ = calibrated
    with (
        running(
            "serve",
            port=free_port(),
            log=root / "log",
            RERANK_MODEL="gmr-tiny@production",
            RERANK_REGISTRY=str(root / "registry"),
            RERANK_MODEL_CACHE=str(root / "cache"),
            **CALM,
        ) as url,
        httpx.Client(base_url=url, timeout=60) as opened,
    ):
        yield opened


def rerank(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    answer = client.post("/rerank", json={"query": "sort", "documents": DOCUMENTS} | fields)
    assert answer.status_code == httpx.codes.OK, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_probabilities_are_those_of_the_published_map(
    client: httpx.Client, calibrated: tuple[Path, Calibration]
) -> None:
    (fitted,) = calibrated[1].maps
    results = rerank(client)
    logits = np.array([each["logit"] for each in results])
    found = [each["probability"] for each in results]
    assert found == pytest.approx(probabilities(fitted.map, logits).tolist())

    middle = sorted(found)[2]
    kept = rerank(client, min_score=middle, min_score_on="probability")
    assert [each["probability"] for each in kept] == [each for each in found if each >= middle]


def test_scores_and_their_digest_are_those_of_the_model_that_ships(
    client: httpx.Client, server: str
) -> None:
    body = {"query": "sort", "documents": DOCUMENTS}
    shipped = httpx.post(f"{server}/rerank", json=body, timeout=60).json()
    own = client.post("/rerank", json=body).json()
    assert own["meta"]["model_digest"] == shipped["meta"]["model_digest"]
    assert [each["index"] for each in own["results"]] == [
        each["index"] for each in shipped["results"]
    ]
    assert "probability" not in shipped["results"][0]


def test_the_service_names_version_and_calibration(
    client: httpx.Client, calibrated: tuple[Path, Calibration]
) -> None:
    info = client.get("/info").json()
    assert info["version"] == f"sha256:{manifest_digest(calibrated[0] / 'folder')}"
    (named,) = info["calibrations"]
    evidence = calibrated[1].maps[0].evidence
    assert named["instruction"] == info["default_instruction"]
    assert named["pairs"] == evidence.relevant + evidence.irrelevant
    assert named["ece"] == evidence.held_out.ece


def test_sglangs_results_have_them_in_their_meta_info(client: httpx.Client) -> None:
    asked = {"query": "sort", "documents": DOCUMENTS}
    answer = client.post("/sglang/v1/rerank", json=asked)
    assert answer.status_code == httpx.codes.OK, answer.text

    found = {each["index"]: each["meta_info"]["probability"] for each in answer.json()}
    assert found == {each["index"]: each["probability"] for each in rerank(client)}


def test_the_terminal_filters_by_probability(client: httpx.Client) -> None:
    asked = ["rerank", "sort", *DOCUMENTS, "--only-texts", "--url", str(client.base_url)]
    best = max(each["probability"] for each in rerank(client))
    found = CliRunner().invoke(
        app, [*asked, "--min-score", str(best), "--min-score-on", "probability"]
    )
    assert found.exit_code == 0, found.output
    assert len(found.stdout.splitlines()) == 1
    other = CliRunner().invoke(
        app, [*asked, "--instruction", "Find it.", "--min-score-on", "probability"]
    )
    assert other.exit_code == 1
    assert "no calibration for this instruction" in other.output


def test_the_table_of_a_terminal_has_probabilities(client: httpx.Client) -> None:
    answer = client.post("/rerank", json={"query": "sort", "documents": DOCUMENTS}).json()
    console = Console(file=StringIO(), width=100)
    documents = [Document(text, text) for text in DOCUMENTS]
    print_table(console, answer, documents, pictures=False)
    heading, first = console.file.getvalue().splitlines()[:2]  # type: ignore[attr-defined]
    assert "probability" in heading
    assert f"{answer['results'][0]['probability']:.1%}" in first
