"""The images: linted, built on a substitute for their base, and run unprivileged on a read-only
root."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Rerank, free_port
from tests.deploy.conftest import PYTHON_IMAGE
from tests.deploy.containers import ROOT, Engine
from tests.processes import eventually

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
VLLM_CPU = ROOT / "docker" / "vllm-cpu" / "Dockerfile"
CONFINED = (
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--pull=never",
    "--no-healthcheck",
)
GATEWAY_BYTES = 250 * 10**6
FIRST_START_SECONDS = 900
"""vLLM's first start in a container reads its libraries from a cold disk."""
SCRATCH = "--tmpfs=/tmp:exec,size=4g,mode=1777"
"""vLLM compiles into it, and loads what it has compiled."""
EAGER = "--env=RERANK_ENGINE_ENFORCE_EAGER=true"
VLLM_OPTIONS = ("--memory=10g", "--shm-size=1g", SCRATCH, EAGER)
IN_CONTAINERS = [("worker_image", ["--memory=4g"]), ("vllm_image", VLLM_OPTIONS)]
BODY = {
    "query": "how do I sort a list",
    "documents": ["Close the file.", "Sort the list in place.", "A circle is a round shape."],
}


@pytest.mark.parametrize("dockerfile", [*DOCKERFILES, VLLM_CPU], ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run(
        [hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False
    )
    assert (said.stdout, said.stderr, said.returncode) == ("", "", 0)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_image_runs_as_nobody_special_from_a_pinned_base(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^ARG \w+_IMAGE=\S+:v?[0-9]\S*$", text, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["gmr"\]$', last, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK (.* CMD \[".*"\]|NONE)$', last, re.MULTILINE)
    assert re.search(rf"^ARG VERSION={re.escape(version)}$", last, re.MULTILINE)
    assert "RUN" not in last


def test_names_that_a_dockerfile_imports_exist() -> None:
    text = "".join(dockerfile.read_text(encoding="utf-8") for dockerfile in DOCKERFILES)
    imported = re.findall(r"from (service[\w.]+) import (\w+)", text)
    assert imported
    for module, name in imported:
        assert hasattr(importlib.import_module(module), name)


@contextmanager
def container(
    engine: Engine,
    image: str,
    *arguments: str,
    port: int = 8000,
    options: Sequence[str] = ("--memory=4g",),
) -> Iterator[tuple[str, str]]:
    """A confined container of an image, published on loopback; its name and its URL."""
    free = free_port()
    name = f"gmr-test-{free}"
    publish = f"--publish=127.0.0.1:{free}:{port}"
    engine.podman(
        "run", "--detach", f"--name={name}", publish, *options, *CONFINED, image, *arguments
    )
    try:
        yield name, f"http://127.0.0.1:{free}"
    finally:
        engine.podman("rm", "--force", name)


def answers(url: str, status: int) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == status
    except httpx.TransportError:
        return False


def await_answer(engine: Engine, name: str, url: str) -> None:
    """Wait until a container answers 200; fail with what it says where it has ended instead."""

    def up() -> bool:
        assert engine.describe(name)["State"]["Running"], engine.podman("logs", name)
        return answers(url, 200)

    eventually(up, why=lambda: engine.podman("logs", name), seconds=FIRST_START_SECONDS)


def logits(answer: dict[str, Any]) -> dict[int, float]:
    return {each["index"]: each["logit"] for each in answer["results"]}


@pytest.mark.slow
def test_the_gateways_image_is_small_and_holds_no_model(engine: Engine, gateway_image: str) -> None:
    added = engine.describe(gateway_image)["Size"] - engine.describe(PYTHON_IMAGE)["Size"]
    assert added < GATEWAY_BYTES
    list_files = (
        "import pathlib; print(*(p for p in pathlib.Path('/opt/gmr').rglob('*') if p.is_file()),"
        " sep='\\n')"
    )
    files = engine.podman(
        "run", "--rm", "--entrypoint=python", *CONFINED, gateway_image, "-c", list_files
    )
    assert "/service/gateway/app.py" in files
    for absent in (
        "site-packages/torch/",
        "site-packages/transformers/",
        "site-packages/numpy/",
        "/pip/",
        "/tests/promises/",
        ".safetensors",
    ):
        assert absent not in files


@pytest.mark.slow
@pytest.mark.parametrize("image", ["gateway_image", "worker_image"])
def test_an_image_says_what_it_is_and_needs_no_shell(
    engine: Engine, image: str, request: pytest.FixtureRequest
) -> None:
    described = engine.describe(request.getfixturevalue(image))
    config = described["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["gmr"]
    assert described["Healthcheck"]["Test"][0] == "CMD"
    labels = {name.removeprefix("org.opencontainers.image.") for name in config["Labels"]}
    assert {"title", "description", "version", "revision", "licenses", "base.name"} <= labels


@pytest.mark.slow
def test_a_gateway_without_keys_does_not_start(engine: Engine, gateway_image: str) -> None:
    command = ("run", "--rm", *CONFINED, "--env=RERANK_WORKERS=http://worker:8001", gateway_image)
    said = engine.podman(*command, check=False)
    assert "No API key is required here" in said
    assert "started" not in said


@pytest.mark.slow
def test_a_gateways_container_is_alive_before_it_is_ready_and_ends_when_told(
    engine: Engine, gateway_image: str
) -> None:
    arguments = ("gateway", "--host", "0.0.0.0", "--insecure", "--workers", "http://127.0.0.1:9")
    with container(engine, gateway_image, *arguments) as (name, url):
        await_answer(engine, name, f"{url}/health/live")
        assert answers(f"{url}/health/ready", 503)
        assert engine.podman("exec", name, "healthy", "8000", "/health/live") == ""
        assert "/health/ready: 503" in engine.podman(
            "exec", name, "healthy", "8000", "/health/ready", check=False
        )
        assert "refused" in engine.podman("exec", name, "healthy", "9", "/", check=False)
        engine.podman("stop", "--time=40", name)
        assert engine.describe(name)["State"]["ExitCode"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("image", "options"), IN_CONTAINERS, ids=["torch", "vllm"])
def test_a_confined_container_scores_as_this_machine_does(
    engine: Engine,
    image: str,
    options: Sequence[str],
    rerank: Rerank,
    request: pytest.FixtureRequest,
) -> None:
    built = request.getfixturevalue(image)
    serve = ("serve", "--host", "0.0.0.0", "--insecure")
    with container(engine, built, *serve, options=options) as (name, url):
        await_answer(engine, name, f"{url}/health/ready")
        there = httpx.post(f"{url}/rerank", json=BODY, timeout=60).raise_for_status().json()
        here = rerank(**BODY).raise_for_status().json()
        assert [each["index"] for each in there["results"]] == [
            each["index"] for each in here["results"]
        ]
        assert logits(there) == pytest.approx(logits(here), abs=1e-3)
        process = engine.podman(
            "exec", name, "python", "-c", "print(open('/proc/1/status').read())"
        )
        assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", process, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", process, re.MULTILINE)
        assert "Read-only file system" in engine.podman(
            "exec", name, "python", "-c", "open('/written', 'w')", check=False
        )
