"""`gmr` lists its commands, and refuses wrong options and settings with one sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import TINY, free_port
from tests.processes import Gmr, eventually

pytestmark = pytest.mark.slow

COMMANDS = ("serve", "gateway", "worker", "bench")


def gmr(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RERANK_")}
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


def refusal(*arguments: str, **environment: str) -> str:
    """The one line with which the command ends."""
    ended = gmr(*arguments, "--port", str(free_port()), **environment)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    return line


def test_help_lists_the_commands() -> None:
    shown = gmr("--help")
    assert shown.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} ", shown.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    shown = gmr(command, "--help")
    assert shown.returncode == 0
    assert f"gmr {command}" in shown.stdout


def test_help_needs_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['gmr', '--help']; from"
        " service.cli.main import app; app()"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode
        == 0
    )


def test_without_a_command_there_is_help() -> None:
    shown = gmr()
    assert "serve" in shown.stdout + shown.stderr


def test_the_version_is_the_packages() -> None:
    assert gmr("--version").stdout == f"{version('gmr-rerank')}\n"


def test_an_unknown_command_is_refused() -> None:
    ended = gmr("sevre")
    assert ended.returncode == 2
    assert "sevre" in ended.stderr


@pytest.mark.parametrize("command", ["serve", "gateway", "worker"])
def test_an_unknown_setting_is_refused_with_a_suggestion(command: str) -> None:
    sentence = refusal(command, RERANK_MAX_DOCUMENT="5")
    assert sentence == "There is no setting RERANK_MAX_DOCUMENT; did you mean RERANK_MAX_DOCUMENTS?"


def test_an_unknown_setting_that_resembles_nothing_is_refused_without_one() -> None:
    assert (
        refusal("serve", RERANK_ZZZZZZZZZZZZZZZ="5")
        == "There is no setting RERANK_ZZZZZZZZZZZZZZZ."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RERANK_MAX_DOCUMENTS", "0"),
        ("RERANK_MAX_DOCUMENTS", "many"),
        ("RERANK_DEVICE", "abacus"),
        ("RERANK_MODEL_REVISION", "main"),
        ("RERANK_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_setting(name: str, value: str) -> None:
    sentence = refusal("serve", **{name: value})
    assert sentence.startswith(f"{name}: ")
    assert sentence.endswith(".")


def test_the_secret_is_not_repeated() -> None:
    ended = gmr("serve", RERANK_CACHE_KEY_SECRET="hush", RERANK_MAX_DOCUMENTS="0")
    assert "hush" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("command", "host"),
    [("serve", "0.0.0.0"), ("worker", "::"), ("gateway", "192.0.2.1"), ("worker", "example.org")],
)
def test_an_address_beyond_loopback_needs_insecure(command: str, host: str) -> None:
    sentence = refusal(command, "--host", host, RERANK_WORKERS="http://127.0.0.1:1")
    assert host in sentence
    assert "--insecure" in sentence


def test_a_gateway_without_workers_is_refused() -> None:
    sentence = refusal("gateway")
    assert "--workers" in sentence
    assert "RERANK_WORKERS" in sentence
    assert refusal("gateway", "--workers", " , ") == sentence
    assert refusal("gateway", RERANK_WORKERS="") == sentence


@pytest.mark.parametrize("url", ["worker:8001", "http://[", "http://worker:port"])
def test_a_workers_address_that_is_no_url_is_refused(url: str) -> None:
    sentence = refusal("gateway", "--workers", f"http://127.0.0.1:1,{url}")
    assert (
        sentence == "RERANK_WORKERS: A worker's address is a URL such as http://127.0.0.1:8001, or"
        " dns://host:port."
    )


def test_a_port_that_is_none_is_refused() -> None:
    ended = gmr("gateway", "--workers", "http://127.0.0.1:1", "--port", "65536")
    assert ended.returncode == 2
    assert "--port" in ended.stderr


def test_a_model_that_is_not_there_ends_the_worker_with_one_line() -> None:
    ended = gmr("worker", "--model", "nothing", "--port", str(free_port()))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "There is no model 'nothing'" in line


def test_a_model_that_is_refused_while_it_is_loaded_is_the_last_line(tmp_path: Path) -> None:
    """Gateway and worker in one process are closed in order: no warning and no traceback follows
    the reason."""
    model = Path(
        shutil.copytree(
            TINY, tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json", "golden*")
        )
    )
    (model / "model.safetensors").write_text("not weights", encoding="utf-8")
    ended = gmr("serve", "--model", str(model), "--port", str(free_port()))
    *stages, refusal = map(json.loads, ended.stderr.splitlines())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert {stage["level"] for stage in stages} == {"info"}
    assert refusal["level"] == "error"
    assert "model.safetensors" in refusal["message"]


def test_the_last_line_of_a_service_says_that_it_was_told_to_end(tmp_path: Path) -> None:
    """Its decoders end with it, without a warning."""
    for end in (signal.SIGINT, signal.SIGTERM):
        with Gmr("gateway", "--workers", "http://127.0.0.1:1", log=tmp_path / end.name) as gateway:
            eventually(lambda: gateway.status("/health/live") == 200, why=gateway.said)
            gateway.signal(end)
            assert gateway.wait() == (130 if end == signal.SIGINT else 0)
            assert json.loads(gateway.said().splitlines()[-1])["message"] == "told to end"


def test_a_hub_model_without_a_commit_is_refused_before_anything_is_loaded() -> None:
    ended = gmr("serve", "--model", "someone/some-model", "--port", str(free_port()))
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert "RERANK_MODEL_REVISION" in line


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_an_engine_that_is_not_installed_is_refused_with_the_line_that_installs_it(
    command: str,
) -> None:
    ended = gmr(command, "--port", str(free_port()), RERANK_ENGINE="vllm")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr
        == "RERANK_ENGINE is vllm, but vLLM is not installed: pip install 'gmr-rerank[vllm]'.\n"
    )


def test_a_port_that_is_taken_ends_the_process_with_a_failure(server: str) -> None:
    port = server.rpartition(":")[2]
    for command in (("gateway", "--workers", "http://127.0.0.1:1"), ("worker",), ("serve",)):
        ended = gmr(*command, "--port", port)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert (
            ended.stderr
            == f"Port {port} of 127.0.0.1 is taken: give another --port, or end what listens"
            " there.\n"
        )


def test_the_page_of_settings_is_what_the_command_prints() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert gmr("settings").stdout == page.read_text(encoding="utf-8"), (
        "gmr settings > docs/settings.md"
    )
