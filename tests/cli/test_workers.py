"""Several workers on one device: an obstacle is told before anything is loaded."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from tests.conftest import free_port


def test_a_taken_port_of_any_worker_is_told() -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        ended = CliRunner().invoke(app, ["worker", "--processes", "2", "--port", str(port - 1)])
    assert ended.exit_code == 1
    assert f"Port {port} of 127.0.0.1 is taken" in ended.output


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("--port", "65535"), {}, "--port is at most 65534"),
        (
            (),
            {"RERANK_ENGINE": "vllm", "RERANK_ENGINE_TENSOR_PARALLEL_SIZE": "2"},
            "RERANK_ENGINE_TENSOR_PARALLEL_SIZE spreads a worker over several devices",
        ),
    ],
)
def test_workers_that_cannot_share_a_device_are_refused(
    arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    command = ["worker", "--processes", "2", *arguments]
    ended = CliRunner().invoke(app, command, env=environment)
    assert ended.exit_code == 2
    assert told in " ".join(ended.output.split())
