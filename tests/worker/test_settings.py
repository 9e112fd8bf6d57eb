"""The worker's settings from the environment: adapters by name, and the engine's own arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from service.cli.main import app
from service.worker.settings import MAX_ADAPTERS, WorkerSettings


def test_adapters_are_read_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_ADAPTERS", " legal=/models/legal, shop = a=b ,")
    assert WorkerSettings().adapters == {"legal": Path("/models/legal"), "shop": Path("a=b")}


@pytest.mark.parametrize(
    "value",
    [
        "legal",
        "=folder",
        "legal= ",
        "legal=a,legal =b",
        ",".join(f"a{number}=b" for number in range(MAX_ADAPTERS + 1)),
    ],
)
def test_adapters_that_are_not_named_once_each_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RERANK_ADAPTERS", value)
    with pytest.raises(ValidationError, match="Adapters are given as name=folder"):
        WorkerSettings()


def test_engine_arguments_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkerSettings().engine_arguments == {}
    monkeypatch.setenv("RERANK_ENGINE_MAX_NUM_SEQS", "8")
    monkeypatch.setenv("RERANK_ENGINE_LOAD_FORMAT", "dummy")
    settings = WorkerSettings()
    assert settings.engine_arguments == {"max_num_seqs": "8", "load_format": "dummy"}
    assert not settings.random_weights
    assert WorkerSettings(engine="vllm").random_weights


@pytest.mark.parametrize("command", ["worker", "serve"])
def test_engine_arguments_need_an_engine_that_has_them(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("RERANK_ENGINE_MAX_NUM_SEQS", "8")
    ended = CliRunner().invoke(app, [command])
    assert ended.exit_code == 2
    assert (
        ended.stderr
        == "RERANK_ENGINE_MAX_NUM_SEQS is an argument of vLLM: it needs RERANK_ENGINE=vllm.\n"
    )
