"""Objects of operators, checked with their published types: names by the TypeScript compiler,
values by validators."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm import CHART, HELM
from tests.deploy.test_install import PROD

pytestmark = pytest.mark.slow
TOOLS = Path(__file__).with_name("tools")
PACKAGES = {
    "keda.sh": "@kubernetes-models/keda",
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
    "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
}
COMPILER = (
    *(
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--types",
        "",
        "--module",
        "nodenext",
        "--moduleResolution",
        "nodenext",
    ),
    *("--preserveSymlinks", "--target", "es2022"),
)
Object = dict[str, Any]


def rendered(*values: str | Path) -> list[Object]:
    """The chart's objects of operators' kinds, the API of each present."""
    command = [HELM, "template", "rerank", CHART, "--kube-version", "1.31.0", *values]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    objects = [value for value in yaml.safe_load_all(text) if value]
    return [value for value in objects if value["apiVersion"].partition("/")[0] in PACKAGES]


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    """One of each kind at least."""
    canary = f"canary.enabled=true,canary.share=10,canary.model.registry.digest=sha256:{'6' * 64}"
    zero = "minReplicas=0,worker.autoscaling.keda.cooldownSeconds=1800"
    waiting = "gateway.settings.RERANK_WAIT_FOR_WORKER_SECONDS=300"
    to_zero = f"worker.autoscaling.{zero},{waiting}"
    scraped = ("--set", f"monitoring.scrape=serviceMonitor,{canary},{to_zero}")
    return [*rendered(*PROD), *rendered(*PROD, *scraped)]


def module_of(value: Object) -> str:
    group, _, version = value["apiVersion"].partition("/")
    return f"{PACKAGES[group]}/{group}/{version}/{value['kind']}"


def compiled(objects: list[Object], folder: Path) -> subprocess.CompletedProcess[str]:
    """The compiler's verdict on a program that states each object with its type."""
    imports = sorted(
        {f'import {{ I{value["kind"]} }} from "{module_of(value)}";' for value in objects}
    )
    stated = [
        f"export const o{n}: I{value['kind']} = {json.dumps(value)};"
        for n, value in enumerate(objects)
    ]
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "objects.ts").write_text("\n".join([*imports, *stated]))
    command = ["node", TOOLS / "node_modules/typescript/lib/tsc.js", *COMPILER, "objects.ts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def validated(objects: list[Object], folder: Path) -> subprocess.CompletedProcess[str]:
    """The verdict of the types' own validators."""
    lines = [
        f'await import("{module_of(value)}").then((kind) => new'
        f" kind.{value['kind']}({json.dumps(value)}).validate());"
        for value in objects
    ]
    (folder / "validate.mjs").write_text("\n".join(lines))
    command = ["node", "--preserve-symlinks", "validate.mjs"]
    return subprocess.run(
        command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False
    )


def test_the_operators_take_what_the_chart_makes(objects: list[Object], tmp_path: Path) -> None:
    kinds = {value["kind"] for value in objects}
    scaled = [value["spec"] for value in objects if value["kind"] == "ScaledObject"]
    assert {spec["minReplicaCount"] for spec in scaled} == {0, 2}
    assert kinds == {"HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor"}
    verdict = compiled(objects, tmp_path)
    assert verdict.returncode == 0, verdict.stdout
    verdict = validated(objects, tmp_path)
    assert verdict.returncode == 0, verdict.stderr


def test_a_misspelled_name_and_a_wrong_value_are_found(
    objects: list[Object], tmp_path: Path
) -> None:
    scaled = next(value for value in objects if value["kind"] == "ScaledObject")
    misspelled = scaled | {"spec": scaled["spec"] | {"minReplicasCount": 1}}
    assert "minReplicasCount" in compiled([misspelled], tmp_path).stdout
    wrong = scaled | {"spec": scaled["spec"] | {"minReplicaCount": "one"}}
    assert "minReplicaCount must be integer" in validated([wrong], tmp_path).stderr
