"""The trainer's image under the chart's own Jobs: podman runs what the chart renders, without a
network, as the chart's user and as one that a cluster assigns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from model_store.evaluation.results import read_results
from model_store.registry.storage import open_storage
from model_store.registry.versions import check, versions
from model_store.training.config import TrainConfig
from model_store.training.journal import read_metrics
from model_store.training.train import train
from tests.conftest import TINY
from tests.deploy.chart import Values, merged, objects, pods
from tests.deploy.containers import Engine
from tests.deploy.pod_runs import NAME, Object, PodRuns
from tests.model_store.training.colours import write_colours

pytestmark = pytest.mark.slow

STEPS = 2
CHART_USER = 10001
ASSIGNED = {"runAsUser": 1_000_680_000, "runAsGroup": 0, "fsGroup": 1_000_680_000}
"""A user as OpenShift assigns it to a pod that names none: without a name or a home, in root's
group."""
RUN = "runs/two-steps"
TRAINING: dict[str, Any] = {
    "model": "gmr-tiny",
    "output": RUN,
    "data": {"train": "rows/train.jsonl", "negatives": 3, "max_tokens": 512},
    "lora": {"rank": 4, "alpha": 8},
    "optimizer": {"learning_rate": 1.0e-3},
    "batch": {"examples": 4, "tokens": 2048, "checkpointing": False},
    "steps": STEPS,
    "precision": "fp32",
    "device": "cpu",
    "tensorboard": True,
}
JOB: Values = {
    "trainer": {
        "enabled": True,
        "claimName": "data",
        "config": yaml.safe_dump(TRAINING),
        "resources": {"limits": {"cpu": "2", "memory": "6Gi"}},
        "sharedMemory": "1Gi",
    }
}
PUBLISHED: Values = {"trainer": {"publish": {"name": "ours", "registry": "/data/registry"}}}
OPENSHIFT = "values-openshift.yaml"
EVALUATION: Values = {
    "evaluation": {
        "enabled": True,
        "queries": 3,
        "claimName": "results",
        "resources": {"limits": {"cpu": "2", "memory": "4Gi"}},
    }
}
MINING = (
    ["data", "sample", "sample"],
    [
        "mine",
        "sample/rows.jsonl",
        "sample/mined.jsonl",
        "--corpus=sample/rows.corpus.jsonl",
        "--hard=4",
    ],
    ["data", "split", "sample/mined.jsonl", "train.jsonl", "dev.jsonl", "--share=0.2"],
    ["data", "check", "train.jsonl", "--held-out=dev.jsonl", "--report=report.html"],
)
"""The commands of docs/training.md before the training. Ray is not among them: it gives a cluster
30 seconds to start, whatever else a machine does."""


@pytest.fixture(scope="module")
def losses_here(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The loss of each step of the same run in this process."""
    folder = tmp_path_factory.mktemp("here")
    rows = write_colours(folder / "rows")
    own = {"model": str(TINY), "output": str(folder / RUN)}
    own |= {"data": TRAINING["data"] | {"train": str(rows)}}
    return losses(train(TrainConfig.model_validate(TRAINING | own)))


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """The folder of the claim `data`, with rows that a machine draws."""
    folder = tmp_path / "data"
    write_colours(folder / "rows")
    return folder


def losses(run: Path) -> list[float]:
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["sft"] for row in rows]


def pod_of(given: Values, *files: str, kind: str = "Job") -> Object:
    """The pod of the release's one object of a kind."""
    (found,) = [pod for name, pod in pods(objects(given, *files)) if name.split()[0] == kind]
    return found


def runs(engine: Engine, folder: Path, given: Values, **claims: Path) -> PodRuns:
    maps = {
        each["metadata"]["name"]: each["data"]
        for each in objects(given)
        if each["kind"] == "ConfigMap"
    }
    volumes = folder / "volumes"
    volumes.mkdir()
    return PodRuns(engine, volumes, claims=claims, config_maps=maps)


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.mark.usefixtures("trainer_image")
def test_a_job_trains_two_steps_as_this_machine_does_and_publishes_them(
    engine: Engine, claim: Path, tmp_path: Path, losses_here: list[float]
) -> None:
    given = merged(JOB, PUBLISHED)
    said = runs(engine, tmp_path, given, data=claim).run(pod_of(given))

    assert losses(claim / RUN) == pytest.approx(losses_here, abs=1e-3)
    learnt = load_file(claim / RUN / "adapter" / "adapter_model.safetensors")
    assert any(torch.count_nonzero(learnt[name]) for name in learnt if "lora_B" in name), said
    assert (claim / RUN / "training.png").is_file()
    assert list((claim / RUN).rglob("events.out.tfevents.*"))

    registry = open_storage(str(claim / "registry"))
    (version,) = versions(registry, "ours")
    check(registry, version)
    assert owners(claim / RUN) == owners(claim / "registry") == {CHART_USER}


@pytest.mark.usefixtures("trainer_image")
def test_two_processes_of_an_assigned_user_train_what_one_trains(
    engine: Engine, claim: Path, tmp_path: Path, losses_here: list[float]
) -> None:
    given = merged(JOB, {"trainer": {"gpu": {"count": 2}}})
    pod = pod_of(given, OPENSHIFT)
    assert not ASSIGNED.keys() & pod["securityContext"].keys()
    assert "--nproc_per_node=2" in pod["containers"][0]["command"]
    runs(engine, tmp_path, given, data=claim).run(pod, **ASSIGNED)

    assert losses(claim / RUN) == pytest.approx(losses_here, abs=1e-3)
    assert owners(claim / RUN) == {ASSIGNED["runAsUser"]}


@pytest.mark.usefixtures("trainer_image")
def test_negatives_are_mined_as_on_this_machine_and_rows_are_split_and_checked(
    engine: Engine, claim: Path, tmp_path: Path
) -> None:
    pod = pod_of(JOB, OPENSHIFT)
    (container,) = pod["containers"]
    placed = runs(engine, tmp_path, JOB, data=claim)
    for arguments in MINING:
        placed.run(pod | {"containers": [container | {"args": arguments}]}, **ASSIGNED)

    here = claim / "sample" / "here.jsonl"
    alone = [sys.executable, "-m", "service.cli", "mine", "sample/rows.jsonl", str(here)]
    options = ["--corpus=sample/rows.corpus.jsonl", "--hard=4"]
    subprocess.run([*alone, *options], cwd=claim, check=True)
    mined = (claim / "sample" / "mined.jsonl").read_text()
    assert mined == here.read_text()
    parts = [(claim / name).read_text().splitlines() for name in ("train.jsonl", "dev.jsonl")]
    assert [len(part) > 0 for part in parts] == [True, True]
    assert sum(map(len, parts)) == len(mined.splitlines())
    assert "<html" in (claim / "report.html").read_text()


@pytest.mark.usefixtures("trainer_image")
def test_the_evaluation_measures_the_model_that_ships(engine: Engine, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    runs(engine, tmp_path, EVALUATION, results=results).run(pod_of(EVALUATION, kind="CronJob"))
    assert read_results(results / f"{NAME}.json")
