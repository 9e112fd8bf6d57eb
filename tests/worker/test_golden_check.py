"""A worker whose checkpoint is not what was published never turns ready, and says why in one
line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from model_store.golden import read_golden
from model_store.manifest import MANIFEST, digest_files, read_manifest, write_manifest
from service.observability.score_metrics import short_digest
from service.wire import ScoreCall, Scored
from service.worker.app import create_worker
from service.worker.engines.base import Begin, PairVerdict, no_callback
from service.worker.engines.loading import create_engine
from service.worker.engines.torch.engine import TorchEngine
from service.worker.settings import WorkerSettings
from tests.conftest import TINY, free_port
from tests.layouts import Layout, write_layout
from tests.metrics import metric_value
from tests.worker.serving import READY_SECONDS, client_of, ready_worker

GOLDEN, WEIGHTS, TOKENIZER = "golden.json", "model.safetensors", "tokenizer.json"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def publish(folder: Path, name: str, content: Any) -> None:
    """Replace a JSON file, and have the manifest say that this is right."""
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    manifest = read_manifest(folder)
    assert manifest
    files = manifest.files | digest_files(folder, [name])
    write_manifest(folder, manifest.model_copy(update={"files": files}))


def with_golden(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    pairs = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
    change(pairs)
    publish(folder, GOLDEN, pairs)


def wrong_logit(folder: Path) -> None:
    with_golden(folder, lambda pairs: pairs[3].update(logit=pairs[3]["logit"] + 0.01))


def no_logit(folder: Path) -> None:
    with_golden(folder, lambda pairs: pairs[3].update(logit=float("nan")))


def too_long_pair(folder: Path) -> None:
    with_golden(folder, lambda pairs: pairs[0]["document"].append({"text": "word " * 5000}))


def corrupt_weights(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1000] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def missing_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def labels_of_two_tokens(folder: Path) -> None:
    tokenizer = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = [
        merge for merge in merges if "".join(merge).replace(" ", "") != "yes"
    ]
    publish(folder, TOKENIZER, tokenizer)


def broken_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("{", encoding="utf-8")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a wrong golden logit": (wrong_logit, "golden pair 3 "),
    "a golden logit that is no number": (no_logit, "golden pair 3 "),
    "a golden pair that cannot be scored": (too_long_pair, "golden pair 0 "),
    "a corrupted byte in the weights": (
        corrupt_weights,
        "model.safetensors is not the file that was published",
    ),
    "a missing file": (missing_weights, "model.safetensors is missing"),
    "labels of two tokens": (labels_of_two_tokens, "the label 'yes' is 2 tokens, not one"),
    "a broken manifest": (broken_manifest, "manifest.json is not a valid manifest"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_checkpoint_never_turns_ready(
    checkpoint: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = BROKEN[case]
    damage(checkpoint)
    ready, failed = asyncio.Event(), asyncio.Event()
    settings = WorkerSettings(model=str(checkpoint), device="cpu", threads=1)
    app = create_worker(
        settings, create_engine(settings), on_ready=ready.set, on_failure=failed.set
    )
    async with app.router.lifespan_context(app), client_of(app) as client:
        await asyncio.wait_for(failed.wait(), READY_SECONDS)
        for path in ("/health/ready", "/info"):
            assert (await client.get(path)).json()["code"] == "no_worker"
    assert not ready.is_set()

    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()
    assert str(checkpoint.parent) not in record.getMessage()
    assert record.exc_info is None


async def test_a_deviation_within_the_tolerance_is_accepted(checkpoint: Path) -> None:
    wrong_logit(checkpoint)
    settings = WorkerSettings(model=str(checkpoint), device="cpu", threads=1, golden_tolerance=0.1)
    async with ready_worker(settings, create_engine(settings)) as client:
        assert (await client.get("/health/ready")).status_code == 200


class DriftingEngine(TorchEngine):
    """The torch engine with `drift` added to each logit."""

    drift = 0.0

    async def score(
        self, call: ScoreCall, begin: Begin = no_callback
    ) -> AsyncGenerator[PairVerdict, None]:
        async with aclosing(super().score(call, begin)) as verdicts:
            async for index, verdict in verdicts:
                if isinstance(verdict, Scored):
                    yield index, structs.replace(verdict, logit=verdict.logit + self.drift)
                else:
                    yield index, verdict


async def test_golden_pairs_are_scored_again_and_their_drift_is_exported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An engine whose scores change later is reported, and stays in service."""
    settings = WorkerSettings(model=str(TINY), device="cpu", threads=1, golden_check_seconds=0.05)
    engine = DriftingEngine(device="cpu", threads=1)
    async with asyncio.timeout(READY_SECONDS), ready_worker(settings, engine) as client:
        (info,) = (await client.get("/info")).json()
        labels = {"model": "gmr-tiny", "digest": short_digest(info["digest"])}

        def drift() -> float:
            return metric_value("rerank_golden_drift_logits", **labels)

        assert metric_value("rerank_golden_tolerance_logits", **labels) == 1e-3
        assert drift() <= 1e-3
        assert metric_value("rerank_model_load_seconds") > 0

        engine.drift = 1.0
        while drift() < 0.9:
            await asyncio.sleep(0.01)
        assert (await client.get("/health/ready")).status_code == 200

        engine.drift = 0.0
        while drift() > 1e-3:
            await asyncio.sleep(0.01)
    errors = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert errors == {"golden pairs have drifted"}


async def test_a_folder_without_golden_pairs_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No drift is reported that was not measured: not at the start, and not later."""
    folder = write_layout(tmp_path / "plain", Layout())
    settings = WorkerSettings(
        model=str(folder), device="cpu", threads=1, golden_check_seconds=0.01, log_level="info"
    )
    with caplog.at_level("INFO"):
        async with ready_worker(settings, create_engine(settings)) as client:
            await asyncio.sleep(0.05)
            (info,) = (await client.get("/info")).json()
            page = (await client.get("/metrics")).text

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "the model family is assumed from the network alone; RERANK_MODEL_FAMILY names it",
        "no golden pairs: start-up check skipped",
    ]
    (start,) = [record for record in caplog.records if record.getMessage() == "ready"]
    assert "golden_drift" not in vars(start)["fields"]

    labels = {"model": info["model"], "digest": short_digest(info["digest"])}
    assert info["golden_pairs"] == metric_value("rerank_golden_pairs", **labels) == 0
    drifts = [line for line in page.splitlines() if line.startswith("rerank_golden_drift_logits{")]
    assert not [line for line in drifts if labels["digest"] in line]


async def test_a_family_that_is_named_is_not_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_layout(tmp_path / "plain", Layout())
    settings = WorkerSettings(model=str(folder), model_family="gmr", device="cpu", threads=1)
    async with ready_worker(settings, create_engine(settings)) as client:
        (info,) = (await client.get("/info")).json()

    assert info["family"] == "gmr"
    assert not [record for record in caplog.records if "assumed" in record.getMessage()]


async def test_the_number_of_golden_pairs_is_reported() -> None:
    settings = WorkerSettings(model=str(TINY), device="cpu", threads=1)
    async with ready_worker(settings, create_engine(settings)) as client:
        (info,) = (await client.get("/info")).json()
    labels = {"model": "gmr-tiny", "digest": short_digest(info["digest"])}
    count = len(read_golden(TINY))
    assert info["golden_pairs"] == metric_value("rerank_golden_pairs", **labels) == count


@pytest.mark.slow
def test_the_worker_process_says_each_stage_and_ends_with_what_is_wrong(checkpoint: Path) -> None:
    wrong_logit(checkpoint)
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "worker",
        "--model",
        str(checkpoint),
        "--port",
        str(free_port()),
    ]
    environment = os.environ | {"RERANK_DEVICE": "cpu", "RERANK_THREADS": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    *stages, refusal = map(json.loads, ended.stderr.splitlines())
    assert "golden pair 3 " in refusal["message"]
    assert {each["level"] for each in stages} == {"info"}
    assert [each["message"] for each in stages if each["message"] != "connections"] == [
        "starting",
        "loading the engine's libraries",
        "reading and checking the model's files",
        "loading the model",
        "scoring golden pairs",
    ]
