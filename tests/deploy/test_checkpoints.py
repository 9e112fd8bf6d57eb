"""The checkpoint of a pod: the rendered init containers are run, and then the worker loads it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.registry.storage import LocalStorage
from model_store.registry.versions import upload
from tests.conftest import TINY
from tests.deploy.chart import Object, Values, environment, merged, objects, one, pods
from tests.model_store.test_checkpoint_hub import COMMIT, MODEL, Hub

LOADING = (
    "from service.cli.settings import worker_settings as read; from model_store.checkpoint import"
    " resolve; s = read(); "
)
LOADING += (
    "print(resolve(s.model, revision=s.model_revision, cache=s.model_cache,"
    " registry=s.registry).folder)"
)
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:1"}


class Pod:
    """The containers of a worker's pod, with /models in a folder of the test."""

    def __init__(self, given: Values, models: Path) -> None:
        spec = one(objects(given), "Deployment", "rerank-worker")["spec"]["template"]["spec"]
        self.before: list[Object] = spec["initContainers"]
        self.worker: Object = spec["containers"][0]
        self.checksums = [
            each["data"]
            for each in objects(given)
            if each["metadata"]["name"].endswith("-checksums")
        ]
        self.models = models
        models.mkdir()

    def here(self, text: str) -> str:
        return re.sub("/models(?=/|$)", str(self.models), text).replace(
            "/checksums", str(self.models.parent)
        )

    def load(self, **others: str) -> subprocess.CompletedProcess[str]:
        *bounded, gmr = self.before[0]["command"]
        assert gmr == "gmr"
        ours = [*bounded, sys.executable, "-m", "service.cli"]
        command = [*ours, *map(self.here, self.before[0]["args"])]
        return subprocess.run(
            command,
            env=self._environment(others),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        for name, text in self.checksums[0].items():
            (self.models.parent / name).write_text(text)
        command, folder = (
            map(self.here, self.before[1]["command"]),
            self.here(self.before[1]["workingDir"]),
        )
        return subprocess.run(
            list(command), cwd=folder, capture_output=True, text=True, check=False
        )

    def start(self) -> subprocess.CompletedProcess[str]:
        """The worker's first steps: resolve its checkpoint, and verify it."""
        told = {name: self.here(value) for name, value in environment(self.worker).items()}
        command = [sys.executable, "-c", LOADING]
        return subprocess.run(
            command,
            env=self._environment(told | NOWHERE),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _environment(self, others: dict[str, str]) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin"} | others | {"HOME": str(self.models.parent)}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(TINY) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


def test_a_version_of_a_registry_is_loaded_by_its_digest(tmp_path: Path) -> None:
    digest = upload(LocalStorage(tmp_path / "registry"), TINY).digest
    registry = {
        "url": (tmp_path / "registry").as_uri(),
        "name": "gmr-tiny",
        "digest": f"sha256:{digest}",
    }
    pod = Pod({"model": {"source": "registry", "registry": registry}}, tmp_path / "models")
    loaded = pod.load()
    assert loaded.returncode == 0, loaded.stderr
    (tmp_path / "registry").rename(tmp_path / "gone")
    started = pod.start()
    assert started.stdout.strip() == str(tmp_path / "models/registry" / digest), started.stderr


def test_a_hub_model_is_loaded_at_its_commit_compared_and_served_offline(
    hub: Hub, tmp_path: Path
) -> None:
    weights = hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest()
    model = {"id": MODEL, "revision": COMMIT, "sha256": {"model.safetensors": weights}}
    given: Values = {"model": {"source": "hub", "hub": model}}
    pod = Pod(given, tmp_path / "models")
    loaded = pod.load(HF_ENDPOINT=hub.url)
    assert loaded.returncode == 0, loaded.stderr
    assert pod.check().returncode == 0
    started = pod.start()
    assert started.stdout.strip() == pod.here(pod.before[1]["workingDir"]), started.stderr
    pod.checksums = Pod(
        merged(given, {"model": {"hub": {"sha256": {"model.safetensors": "0" * 64}}}}),
        tmp_path / "other",
    ).checksums
    assert pod.check().returncode != 0


def test_a_download_that_hangs_ends_within_its_time_which_the_roll_out_has(tmp_path: Path) -> None:
    given: Values = {"model": {"source": "hub", "hub": {"id": MODEL, "revision": COMMIT}}}
    bounded = merged(given, {"model": {"download": {"timeoutSeconds": 900}}})
    *bound, _ = Pod(bounded, tmp_path / "models").before[0]["command"]
    assert "900" in bound
    hanging = ["1" if each == "900" else each for each in [*bound, "sleep", "60"]]
    ended = subprocess.run(hanging, check=False)
    assert ended.returncode == 124

    def deadline(values: Values) -> int:
        spec = one(objects(values), "Deployment", "rerank-worker")["spec"]
        return int(spec["progressDeadlineSeconds"])

    assert deadline(bounded) - deadline({}) == 900
    assert deadline(given) - deadline({}) > 16e9 / 20e6, "16 GB at 20 MB/s"


def test_a_family_that_is_named_is_the_downloads_the_workers_and_the_evaluations() -> None:
    given: Values = {
        "model": {"source": "hub", "hub": {"id": MODEL, "revision": COMMIT}, "family": "gmr"},
        "evaluation": {"enabled": True},
    }
    serving = 0
    for _, pod in pods(objects(given)):
        loading = [each for each in pod.get("initContainers", ()) if each["name"] == "load-model"]
        if loading:
            assert "--family=gmr" in loading[0]["args"]
            assert environment(pod["containers"][0])["RERANK_MODEL_FAMILY"] == "gmr"
            serving += 1
    assert serving == 2
