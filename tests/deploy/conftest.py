"""Images that are built once for all tests of a run, and kept under build/ for the next one."""

from __future__ import annotations

import pytest

from tests.deploy.containers import ROOT, Engine, why_not

PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
OURS = "ghcr.io/gmr-rerank"
VLLM_CPU_IMAGE = "localhost/vllm-cpu:0.32.0"


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The container engine; the test is skipped, with the reason, on machines without one."""
    if reason := why_not():
        pytest.skip(reason)
    return Engine(ROOT / "build" / "containers")


def built(engine: Engine, name: str, **arguments: str) -> str:
    engine.python_base(PYTHON_IMAGE)
    image = f"{OURS}/{name}:0.1.0"
    engine.build(ROOT / "docker" / f"{name}.Dockerfile", image, **arguments)
    return image


@pytest.fixture(scope="session")
def gateway_image(engine: Engine) -> str:
    return built(engine, "gateway")


@pytest.fixture(scope="session")
def worker_image(engine: Engine) -> str:
    """The CPU one."""
    return built(engine, "worker-cpu")


@pytest.fixture(scope="session")
def trainer_image(engine: Engine) -> str:
    """The one for CUDA where torch's index has that build alone, else the one for CPUs."""
    return built(engine, "trainer")


@pytest.fixture(scope="session")
def vllm_image(engine: Engine) -> str:
    """The worker with vLLM, on the base of vLLM's CPU build."""
    engine.python_base(PYTHON_IMAGE)
    engine.build(ROOT / "docker" / "vllm-cpu" / "Dockerfile", VLLM_CPU_IMAGE)
    return built(engine, "worker", VLLM_IMAGE=VLLM_CPU_IMAGE)
