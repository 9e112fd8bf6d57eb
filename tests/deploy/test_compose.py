"""`docker compose up`, each service killed in turn, `down`: the real docker-compose on podman's
socket.

The gateway and the CPU worker are the images that `docker/` builds; Debian's programs stand in for
the images of Redis and Prometheus. Grafana is not here: no package of Debian has it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.gateway.admission.keys import KeyEntry, change_keys, digest, new_key
from tests.conftest import Rerank
from tests.deploy.containers import ROOT, Compose, Engine
from tests.processes import eventually

pytestmark = pytest.mark.slow

SERVICES = ("gateway", "worker-cpu", "redis", "prometheus")
PROJECT = "gmr-test"
QUERY = "how do I sort a list"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("compose") / "deploy" / "compose" / "make_secrets.py"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "compose" / "make_secrets.py", script)
    subprocess.run([sys.executable, script], check=True)
    return script.with_name("secrets")


@pytest.fixture(scope="module")
def stack(
    engine: Engine, gateway_image: str, worker_image: str, secrets: Path
) -> Iterator[Compose]:
    """All that a machine without a GPU and without Grafana gets from `docker compose up --wait`."""
    engine.program("docker.io/library/redis:7.2-bookworm", "redis-server", "redis-cli")
    engine.program(
        "docker.io/prom/prometheus:v3.5.0",
        "prometheus",
        "promtool",
        entrypoint="prometheus",
        folders=["prometheus"],
    )
    compose = Compose(engine, secrets, PROJECT, "cpu")
    with engine.serving(), compose.checked():
        try:
            compose("up", "--detach", "--wait", "--no-build", "--pull", "never", *SERVICES)
            yield compose
        finally:
            compose("down", "--volumes")


@pytest.fixture(scope="module")
def caller(stack: Compose, secrets: Path) -> Iterator[httpx.Client]:
    key = (secrets / "api_key").read_text()
    with httpx.Client(
        base_url=stack.url, headers={"authorization": f"Bearer {key}"}, timeout=60
    ) as caller:
        yield caller


def asked(caller: httpx.Client, *documents: str) -> httpx.Response:
    return caller.post("/rerank", json={"query": QUERY, "documents": documents})


def test_it_is_up_and_healthy(stack: Compose) -> None:
    assert all(stack.healthy(service) for service in SERVICES)


def test_it_scores_as_this_machine_does(caller: httpx.Client, rerank: Rerank) -> None:
    documents = [
        "Close the file.",
        "Sort the list in ascending order and return None.",
        "A circle is a round shape.",
    ]
    there, here = (
        {each["index"]: each["logit"] for each in answer.raise_for_status().json()["results"]}
        for answer in (asked(caller, *documents), rerank(query=QUERY, documents=documents))
    )
    assert list(there) == list(here)
    assert there == pytest.approx(here, abs=1e-3)


def test_a_key_is_needed_and_the_one_of_prometheus_ranks_nothing(
    stack: Compose, secrets: Path
) -> None:
    assert httpx.post(f"{stack.url}/rerank", json={}).status_code == httpx.codes.UNAUTHORIZED
    key = (secrets / "prometheus_key").read_text()
    with httpx.Client(base_url=stack.url, headers={"authorization": f"Bearer {key}"}) as prometheus:
        assert prometheus.get("/metrics").status_code == httpx.codes.OK
        assert asked(prometheus, "a").is_client_error


def test_a_key_that_is_made_counts_at_once(stack: Compose, secrets: Path) -> None:
    key = new_key()
    entry = KeyEntry(sha256=digest(key.encode()).hex(), name="another")
    change_keys(secrets / "keys" / "keys.json", lambda known: (*known, entry))
    with httpx.Client(
        base_url=stack.url, headers={"authorization": f"Bearer {key}"}, timeout=60
    ) as another:
        eventually(lambda: asked(another, "a").status_code == httpx.codes.OK)


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_confined(engine: Engine, stack: Compose, service: str) -> None:
    described = engine.describe(stack.container(service))
    assert described["HostConfig"]["ReadonlyRootfs"]
    assert described["EffectiveCaps"] in (None, [])
    assert described["HostConfig"]["Memory"] > 0
    assert described["HostConfig"]["PidsLimit"] > 0
    assert described["Config"]["User"] not in ("", "0", "root")


def test_prometheus_scrapes_both_and_knows_the_rules(stack: Compose) -> None:
    def prometheus(path: str) -> Any:
        return httpx.get(
            f"http://127.0.0.1:{stack.prometheus_port}/api/v1/{path}", timeout=30
        ).json()["data"]

    def up() -> set[str]:
        return {
            target["labels"]["job"]
            for target in prometheus("targets")["activeTargets"]
            if target["health"] == "up"
        }

    eventually(
        lambda: up() == {"gateway", "worker", "prometheus"}, why=lambda: str(prometheus("targets"))
    )
    groups = prometheus("rules")["groups"]
    assert {Path(group["file"]).name for group in groups} == {
        path.name for path in (ROOT / "deploy" / "alerts").glob("*.yaml")
    }


def test_scores_outlive_the_gateway_and_a_redis_that_is_gone_is_not_missed(
    stack: Compose, caller: httpx.Client
) -> None:
    asked(caller, "kept").raise_for_status()
    kill(stack, "gateway")
    with pytest.raises(httpx.TransportError):
        caller.get("/health/live")
    start(stack, "gateway")
    assert asked(caller, "kept").json()["meta"]["cached_pairs"] == 1

    kill(stack, "redis")
    assert asked(caller, "scored without Redis").status_code == httpx.codes.OK
    start(stack, "redis")


def test_without_its_worker_the_gateway_says_so_and_finds_it_when_it_is_back(
    stack: Compose, caller: httpx.Client
) -> None:
    kill(stack, "worker-cpu")
    eventually(lambda: caller.get("/health/ready").status_code == httpx.codes.SERVICE_UNAVAILABLE)
    refused = asked(caller, "nobody can score this")
    assert (refused.status_code, refused.json()["code"]) == (
        httpx.codes.SERVICE_UNAVAILABLE,
        "no_worker",
    )
    start(stack, "worker-cpu")
    eventually(lambda: asked(caller, "nobody could score this").status_code == httpx.codes.OK)


def test_prometheus_is_not_missed(stack: Compose, caller: httpx.Client) -> None:
    kill(stack, "prometheus")
    assert asked(caller, "not measured").status_code == httpx.codes.OK
    start(stack, "prometheus")


def test_down_leaves_nothing(engine: Engine, stack: Compose) -> None:
    stack("down", "--volumes")
    for kind in ("container", "volume", "network"):
        assert PROJECT not in engine.podman(kind, "ls", *(["--all"] if kind == "container" else []))


def kill(stack: Compose, service: str) -> None:
    stack("kill", service)


def start(stack: Compose, service: str) -> None:
    stack("start", service)
    eventually(lambda: stack.healthy(service), why=lambda: stack("logs", service))
