"""Pod security, network policies, and secrets."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.deploy.chart import KUBE, Values, container, helm, merged, objects, one, pods
from tests.deploy.features import FEATURES, FILES
from tests.deploy.helm import CHART
from tests.processes import Process, eventually


@pytest.mark.parametrize("feature", [*FEATURES, "values-prod.yaml"])
def test_every_pod_is_restricted(feature: str) -> None:
    """Kubernetes' restricted profile, and what it does not ask for: a read-only root, no token,
    nothing of other Services."""
    given, files = FILES[feature] if feature in FILES else (FEATURES[feature], ())
    for name, pod in pods(objects(given, *files)):
        assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for each in [*pod.get("initContainers", ()), *pod["containers"]]:
            if each["name"] in ("before", "beside"):  # the test's own
                continue
            context = each["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert each["resources"]["limits"]["memory"], name
            assert each["resources"]["requests"]["cpu"], name
            on_gpus = "worker" in each["name"] and files  # values-prod.yaml leaves it to the node
            assert on_gpus or each["resources"]["limits"]["cpu"], (name, each["name"])


def test_nobody_talks_to_anybody_but_as_is_said() -> None:
    found = objects()
    nothing = one(found, "NetworkPolicy", "rerank-nothing")["spec"]
    assert nothing["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & nothing.keys()
    worker, redis = (
        one(found, "NetworkPolicy", f"rerank-{part}")["spec"] for part in ("worker", "redis")
    )
    for closed in (worker, redis):
        assert "egress" not in closed
        assert [list(peer) for rule in closed["ingress"] for peer in rule["from"]] == [
            ["podSelector"]
        ]
        assert (
            closed["ingress"][0]["from"][0]["podSelector"]["matchLabels"][
                "app.kubernetes.io/component"
            ]
            == "gateway"
        )


def test_image_urls_open_the_internet_and_nothing_else() -> None:
    def https(given: Values) -> list[Any]:
        rules = one(objects(given), "NetworkPolicy", "rerank-gateway")["spec"]["egress"]
        return [rule["to"] for rule in rules if rule["ports"][0]["port"] == 443]

    assert https({}) == []
    (peers,) = https(FEATURES["image urls"])
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(
        peers[0]["ipBlock"]["except"]
    )


def test_generated_secrets_fit_together() -> None:
    """The key's hash is in the keys file, and the password's in Redis' list of users."""
    data = one(objects(), "Secret", "rerank-secrets")["stringData"]
    (entry,) = json.loads(data["keys.json"])["keys"]
    assert entry["sha256"] == hashlib.sha256(data["api-key"].encode()).hexdigest()
    assert f"#{hashlib.sha256(data['redis-password'].encode()).hexdigest()} " in data["users.acl"]
    assert (
        one(objects(release="other"), "Secret", "other-rerank-secrets")["stringData"]["api-key"]
        != data["api-key"]
    )


def test_secrets_that_are_given_are_not_generated() -> None:
    given = merged(FEATURES["own secrets"], {"redis": {"enabled": False}})
    assert [each for each in objects(given) if each["kind"] == "Secret"] == []


GITOPS: dict[str, Values] = {
    "redis of the chart": {
        "auth": {"existingSecret": "rerank-keys"},
        "cacheSecret": {"existingSecret": "rerank-cache"},
        "redis": {"existingSecret": "rerank-redis"},
    },
    "redis elsewhere": merged(FEATURES["own secrets"], FEATURES["redis elsewhere"]),
    "no redis": merged(FEATURES["own secrets"], {"redis": {"enabled": False}}),
    "training": merged(
        FEATURES["own secrets"], {"redis": {"existingSecret": "r"}}, FEATURES["training"]
    ),
}


@pytest.mark.parametrize("setup", GITOPS)
def test_tools_that_render_without_a_cluster_get_the_same_each_time(setup: str) -> None:
    line = ("template", "rerank", CHART, "--kube-version", KUBE)
    first, second = (helm(*line, given=GITOPS[setup]) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert [each for each in objects(GITOPS[setup]) if each["kind"] == "Secret"] == []


def test_redis_has_the_password_of_a_secret_that_is_given(tmp_path: Path) -> None:
    """The rendered command runs, with its files in a folder of the test."""
    found = objects(GITOPS["redis of the chart"])
    data = one(found, "ConfigMap", "rerank-redis")["data"]
    command, port = container(found, "rerank-redis")["command"], free_port()
    volumes = one(found, "Deployment", "rerank-gateway")["spec"]["template"]["spec"]["volumes"]
    secret = {
        "secretName": "rerank-redis",
        "items": [{"key": "redis-password", "path": "password"}],
    }
    assert {"name": "redis-password", "secret": secret} in volumes

    def here(text: str) -> str:
        text = re.sub("/etc/redis/secret|/etc/redis/config|/tmp", str(tmp_path), text)
        return text.replace("port 6379", f"port {port}").replace("bind * -::*", "bind 127.0.0.1")

    (tmp_path / "password").write_text("a pass/word&$x\n")
    for name, text in data.items():
        (tmp_path / name).write_text(here(text))
    (tmp_path / "users.acl").rename(tmp_path / "template.acl")
    ours = here(command[-1]).replace(f"{tmp_path}/users.acl >", f"{tmp_path}/template.acl >")
    with Process([*command[:-1], ours], tmp_path / "log") as redis:

        def ping(password: str) -> str:
            asked = ["redis-cli", "-e", "-p", str(port), "--user", "gmr", "--pass", password]
            done = subprocess.run(
                [*asked, "SET", "gmr:a", "1"], capture_output=True, text=True, check=False
            )
            return done.stdout.strip()

        eventually(lambda: ping("a pass/word&$x") == "OK", why=redis.said)
        assert ping("another") != "OK"


def test_redis_takes_the_configuration_and_lets_gateways_do_what_they_do_and_no_more(
    tmp_path: Path,
) -> None:
    found = objects()
    data = one(found, "Secret", "rerank-secrets")["stringData"]
    config = one(found, "ConfigMap", "rerank-redis")["data"]["redis.conf"]
    port = free_port()
    (tmp_path / "users.acl").write_text(data["users.acl"])
    here = (
        config.replace("/etc/redis/secret", str(tmp_path))
        .replace("port 6379", f"port {port}")
        .replace("dir /tmp", f"dir {tmp_path}")
    )
    (tmp_path / "redis.conf").write_text(here.replace("bind * -::*", "bind 127.0.0.1"))

    def cli(*arguments: str, user: str = "gmr", password: str = data["redis-password"]) -> str:
        done = subprocess.run(
            [
                "redis-cli",
                "-e",
                "--no-auth-warning",
                "-u",
                f"redis://{user}:{password}@127.0.0.1:{port}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else f"refused: {done.stderr.strip()}"

    probe = container(found, "rerank-redis")["livenessProbe"]["exec"]["command"]
    with Process(["redis-server", str(tmp_path / "redis.conf")], tmp_path / "log"):
        eventually(
            lambda: (
                subprocess.run(
                    [part.replace("6379", str(port)) for part in probe], check=False
                ).returncode
                == 0
            )
        )
        assert cli("SET", "gmr:a", "1", "EX", "60") == "OK"
        assert cli("MGET", "gmr:a") == "1"
        for command in (
            ("SET", "other", "1"),
            ("GET", "gmr:a"),
            ("KEYS", "*"),
            ("CONFIG", "GET", "*"),
            ("EVAL", "return 1", "0"),
        ):
            assert cli(*command).startswith("refused: NOPERM"), command
        assert cli("PING", user="default", password="x").startswith("refused")
        assert cli("MGET", "gmr:a", user="probe", password="x").startswith("refused: NOPERM")
