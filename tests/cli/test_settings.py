"""Renamed settings: an old name ends each command with a sentence that has the new one."""

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
