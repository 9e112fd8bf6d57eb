"""docker-compose.yml as docker-compose reads it, in every profile, and its secrets."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.gateway.admission.keys import digest, read_keys
from service.gateway.settings import GatewaySettings
from service.web.settings import ServerSettings
from service.worker.settings import WorkerSettings
from tests.deploy.containers import ROOT, compose_program
from tests.processes import RedisServer

BESIDE = {"gateway", "redis", "prometheus", "grafana"}
PROFILES = {"cpu": {"worker-cpu"}, "gpu": {"worker-gpu"}}


def compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`docker-compose ARGUMENTS`, without what a developer's .env says."""
    command = [compose_program(), "--env-file", os.devnull, *arguments]
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GMR_", "RERANK_", "COMPOSE_"))
    }
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
    )


def services(profile: str, **environment: str) -> dict[str, Any]:
    done = compose(
        "--profile", profile, "config", "--format", "json", GMR_SECRETS="./secrets", **environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def made_secrets(root: Path) -> subprocess.CompletedProcess[str]:
    """The script, copied to where it makes them under `root`."""
    script = root / "deploy" / "compose" / "make_secrets.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_bytes((ROOT / "deploy" / "compose" / "make_secrets.py").read_bytes())
    return subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_one_kind_of_worker_that_the_gateway_finds(profile: str) -> None:
    found = services(profile)
    assert set(found) == BESIDE | PROFILES[profile]
    (worker,) = PROFILES[profile]
    assert found[worker]["networks"]["workers"]["aliases"] == ["worker"]
    assert found["gateway"]["environment"]["RERANK_WORKERS"] == "dns://worker:8001"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_container_is_confined(profile: str) -> None:
    grace = ServerSettings().grace_seconds
    for name, service in services(profile).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["logging"]["options"]["max-size"], name
        assert int(service["stop_grace_period"].removesuffix("s")) > grace, name
        assert re.fullmatch(r"\S+:v?[0-9]+\.[0-9]\S*", service["image"]), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert "privileged" not in service, name


def test_only_the_gateway_meets_redis_and_workers_meet_nobody_else() -> None:
    found = services("gpu")
    on = {
        network: {name for name in found if network in found[name]["networks"]}
        for network in ("edge", "workers", "cache")
    }
    assert on["cache"] == {"gateway", "redis"}
    assert on["workers"] == {"gateway", "worker-gpu", "prometheus"}
    assert on["edge"] == {"gateway", "prometheus", "grafana"}


def test_the_worker_on_a_gpu_serves_the_model_that_it_is_told() -> None:
    found = services("gpu", RERANK_MODEL="some/model", RERANK_MODEL_REVISION="0" * 40)["worker-gpu"]
    assert found["environment"]["RERANK_ENGINE"] == "vllm"
    assert found["environment"]["RERANK_MODEL"] == "some/model"
    assert found["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_are_settings_of_ours(profile: str) -> None:
    known = {
        f"RERANK_{name.upper()}"
        for kind in (GatewaySettings, WorkerSettings)
        for name in kind.model_fields
    }
    told = {
        name
        for each in services(profile).values()
        for name in each.get("environment") or {}
        if name.startswith("RERANK_")
    }
    assert told
    assert told <= known


def test_a_folder_of_models_may_take_the_place_of_the_volume() -> None:
    (mounted,) = services("cpu", GMR_MODELS="./checkpoints")["worker-cpu"]["volumes"]
    assert (mounted["type"], mounted["target"]) == ("bind", "/models")
    (mounted,) = services("cpu")["worker-cpu"]["volumes"]
    assert (mounted["type"], mounted["target"]) == ("volume", "/models")


def test_without_secrets_it_says_what_to_do() -> None:
    done = compose("--profile", "cpu", "config", "--quiet")
    assert done.returncode != 0
    assert "run 'make secrets' first" in done.stderr


def test_grafana_and_prometheus_find_what_is_mounted() -> None:
    found = services("cpu")
    mounted = {
        volume["target"] for name in ("grafana", "prometheus") for volume in found[name]["volumes"]
    }
    folder = ROOT / "deploy" / "compose"
    provider = yaml.safe_load((folder / "grafana" / "dashboards" / "gmr-rerank.yaml").read_text())[
        "providers"
    ][0]
    assert provider["options"]["path"] in mounted
    prometheus = yaml.safe_load((folder / "prometheus.yml").read_text())
    assert {str(Path(rules).parent) for rules in prometheus["rule_files"]} <= mounted
    source = yaml.safe_load((folder / "grafana" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ][0]
    assert source["url"] == "http://prometheus:9090"


def test_secrets_are_made_once_and_fit_each_other(tmp_path: Path) -> None:
    first = made_secrets(tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "deploy" / "compose" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    content = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in content)
    assert not any(secret in first.stdout for path, secret in content.items() if path.suffix == "")

    known = {each.name: each for each in read_keys(folder / "keys" / "keys.json").keys}
    assert known["compose"].sha256 == digest((folder / "api_key").read_bytes()).hex()
    assert known["prometheus"].sha256 == digest((folder / "prometheus_key").read_bytes()).hex()
    assert known["prometheus"].models == ("none",)

    again = made_secrets(tmp_path)
    assert (again.returncode, again.stdout) == (0, "")
    assert {path: path.read_text() for path in folder.rglob("*") if path.is_file()} == content


def test_redis_lets_in_the_one_user_with_the_password_alone(tmp_path: Path) -> None:
    made_secrets(tmp_path)
    folder = tmp_path / "deploy" / "compose" / "secrets"
    password = (folder / "redis_password").read_text()
    with RedisServer(tmp_path) as redis:
        for line in reversed((folder / "redis_acl").read_text().splitlines()):
            assert redis.command("ACL", "SETUSER", *line.split()[1:]) == "OK"
        user = ("--user", "gmr", "--pass", password, "--no-auth-warning")
        assert redis.command("MGET", "gmr:a").startswith("NOAUTH")
        assert redis.command(*user, "SET", "gmr:a", "1") == "OK"
        assert redis.command(*user, "MGET", "gmr:a") == "1"
        assert redis.command(*user, "SET", "other", "1").startswith("NOPERM")
        assert redis.command(*user, "KEYS", "*").startswith("NOPERM")


def test_an_env_file_of_somebody_elses_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MINE=1\n")
    done = made_secrets(tmp_path)
    assert done.returncode == 1
    assert (
        "add the lines GMR_SECRETS=./deploy/compose/secrets and COMPOSE_PROFILES=cpu" in done.stderr
    )
    assert (tmp_path / ".env").read_text() == "MINE=1\n"
