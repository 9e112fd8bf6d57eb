"""The chart as helm renders it, without a cluster: its objects, or helm's error."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy.helm import CALL_SECONDS, CHART, HELM

KUBE = "1.37.0"
DIGEST = f"sha256:{'a' * 64}"

Object = dict[str, Any]
Values = dict[str, Any]

_OPERATORS = ("monitoring.coreos.com/", "keda.sh/", "gateway.networking.k8s.io/")

CANARY: Values = {
    "canary": {
        "enabled": True,
        "model": {"source": "pvc", "pvc": {"claimName": "next", "path": "gmr"}},
    }
}
GPU: Values = {"worker": {"settings": {"RERANK_ENGINE": "vllm"}, "gpu": {"count": 1}}}
HUB: Values = {
    "model": {"source": "hub", "hub": {"id": "vec-ai/lychee-rerank-mm", "revision": "b" * 40}}
}
PROD: Values = {
    "model": {"registry": {"url": "s3://models", "name": "my-gmr", "digest": DIGEST}},
    "httpRoute": {"parentRefs": [{"name": "public"}], "hostnames": ["rerank.example.com"]},
}
"""What values-prod.yaml leaves to be said."""
TRAINER: Values = {
    "trainer": {
        "enabled": True,
        "claimName": "training",
        "config": "model: Qwen/Qwen2.5-VL-3B-Instruct\noutput: runs/one\n",
    }
}


def merged(*values: Values) -> Values:
    """Several sets of values merged, later ones overriding earlier ones."""
    result: Values = {}
    for each in values:
        for key, value in each.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def helm(*arguments: str | Path, given: Values | None = None) -> subprocess.CompletedProcess[str]:
    """A finished helm process, with values on its standard input."""
    command = [str(HELM), *map(str, arguments), *(["--values", "-"] if given is not None else [])]
    return subprocess.run(
        command,
        input=yaml.safe_dump(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=CALL_SECONDS,
    )


def objects(
    given: Values | None = None, *files: str, kube: str = KUBE, release: str = "rerank"
) -> list[Object]:
    """The objects of a release; a failed assertion if helm refuses the values."""
    text = _rendered(yaml.safe_dump(given or {}), files, kube, release)
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]  # safe, and in C


@cache
def _rendered(given: str, files: tuple[str, ...], kube: str, release: str) -> str:
    named = [part for file in files for part in ("--values", CHART / file)]
    options = ("--namespace", "search", "--kube-version", kube, *named)
    done = helm("template", release, CHART, *options, given=yaml.safe_load(given))
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(given: Values, *, kube: str = KUBE) -> str:
    """Helm's error about values; a failed assertion if there is none."""
    done = helm("template", "rerank", CHART, "--kube-version", kube, given=given)
    assert done.returncode != 0, done.stdout
    return done.stderr


def expect_valid(found: list[Object], version: str) -> None:
    """Validate each object with the strict schema of a Kubernetes version, except kinds of
    operators."""
    for each in found:
        if not each["apiVersion"].startswith(_OPERATORS):
            _expect_valid(json.dumps(each, sort_keys=True), version.removesuffix(".0"))


@cache
def _expect_valid(text: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def one(found: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    fitting = [each for each in found if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(fitting) == 1, f"{len(fitting)} of {kind} {name}"
    return fitting[0]


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template of the objects: (kind and name of the object, the pod's spec)."""
    for each in found:
        name = f"{each['kind']} {each['metadata']['name']}"
        match each["kind"]:
            case "Deployment" | "Job":
                yield name, each["spec"]["template"]["spec"]
            case "CronJob":
                yield name, each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            case "Pod":
                yield name, each["spec"]


def container(found: list[Object], deployment: str) -> Object:
    """The first container of a Deployment."""
    first: Object = one(found, "Deployment", deployment)["spec"]["template"]["spec"]["containers"][
        0
    ]
    return first


def environment(container: Object) -> dict[str, str]:
    """A container's environment variables with literal values."""
    return {each["name"]: each.get("value", "") for each in container["env"]}
