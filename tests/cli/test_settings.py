"""Settings that end a command with one sentence: renamed ones, and pages of every origin without
a key."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.cli.settings import RENAMED
from service.gateway.settings import GatewaySettings
from service.worker.settings import WorkerSettings

KNOWN = {
    f"RERANK_{name.upper()}"
    for kind in (GatewaySettings, WorkerSettings)
    for name in kind.model_fields
}


@pytest.mark.parametrize("command", ["serve", "gateway", "worker"])
@pytest.mark.parametrize("name", RENAMED)
def test_an_old_name_is_refused_with_the_new_one(command: str, name: str) -> None:
    ended = CliRunner().invoke(app, [command], env={name: "1"})
    assert ended.exit_code == 2
    assert ended.stderr.split("\n")[0] == f"{name} is now called {RENAMED[name]}: rename it."
    assert not ended.stdout


def test_new_names_are_settings_and_old_ones_are_not() -> None:
    assert set(RENAMED.values()) <= KNOWN
    assert not KNOWN & set(RENAMED)


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_pages_of_every_origin_take_keys_or_a_flag(command: str) -> None:
    options = [command, "--port", "1"]
    if command == "gateway":
        options += ["--workers", "http://127.0.0.1:9"]
    every = {"RERANK_CORS_ORIGINS": "*"}

    ended = CliRunner().invoke(app, options, env=every)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "RERANK_CORS_ORIGINS=* lets every web page" in ended.stderr

    allowed = (
        CliRunner().invoke(app, [*options, "--insecure", "--host", "no.such.invalid"], env=every),
        CliRunner().invoke(
            app,
            [*options, "--host", "no.such.invalid"],
            env=every | {"RERANK_API_KEYS": "k" * 32},
        ),
    )
    for ended in allowed:
        assert ended.exit_code == 1
        assert "has no address to listen on" in ended.stderr
