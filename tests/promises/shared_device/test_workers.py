"""Two workers that share a device: a port each, one end. Real processes."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import CALM
from tests.processes import Gmr, eventually

pytestmark = pytest.mark.slow


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_two_workers_serve_on_two_ports_and_end_together(tmp_path: Path) -> None:
    settings = CALM | {"RERANK_DRAIN_SECONDS": "3"}
    with Gmr("worker", "--processes", "2", log=tmp_path / "workers", **settings) as workers:
        host, _, port = workers.url.rpartition(":")
        second = f"{host}:{int(port) + 1}"
        eventually(lambda: "all workers are ready" in workers.said(), why=workers.said)
        digests = [httpx.get(f"{url}/info").json()[0]["digest"] for url in (workers.url, second)]
        assert digests[0] == digests[1]

        named = f"dns://127.0.0.1:{port},dns://127.0.0.1:{int(port) + 1}"
        with Gmr("gateway", "--workers", named, log=tmp_path / "gateway") as gateway:
            gateway.await_ready()
            eventually(lambda: gateway.metric('rerank_workers{state="ready"}') == 2)
            assert gateway.rerank(query="a", documents=["b", "c"]).status_code == httpx.codes.OK

        children = psutil.Process(workers.pid).children()
        assert len(children) == 2
        children[1].kill()
        eventually(lambda: "told to end" in workers.said(), why=workers.said)
        children[0].terminate()  # as a service manager does, which tells each process
        with pytest.raises(psutil.TimeoutExpired):  # it drains all the same
            children[0].wait(1)
        assert workers.wait() == 1
        assert not any(child.is_running() for child in children)
        assert "a worker has ended: all end" in workers.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_ends_while_a_worker_loads_leaves_none(
    number: signal.Signals, tmp_path: Path
) -> None:
    with Gmr("worker", "--processes", "2", log=tmp_path / "log", **CALM) as workers:
        eventually(lambda: "a worker is started" in workers.said(), why=workers.said)
        (child,) = psutil.Process(workers.pid).children()
        workers.signal(number)
        assert workers.wait() == (0 if number == signal.SIGTERM else -number)
        eventually(lambda: ended(child), why=workers.said)
