"""What a release has beside its gateways and workers: its test, jobs, rules and dashboards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.deploy.chart import TRAINER, Values, merged, objects, one
from tests.deploy.features import FEATURES
from tests.deploy.helm import ROOT


def test_the_question_of_helm_test_is_answered_by_the_service(server: str) -> None:
    command = one(objects(), "Pod", "rerank-test")["spec"]["containers"][0]["command"]
    asked = subprocess.run(
        [sys.executable, *command[1:]], env={"URL": server}, capture_output=True, text=True, check=False, timeout=120
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("gmr-tiny ")
    refused = subprocess.run([sys.executable, *command[1:]], env={"URL": f"{server}/nowhere"}, capture_output=True, check=False)
    assert refused.returncode != 0


def test_a_job_with_other_values_is_another_job() -> None:
    def names(given: Values) -> list[str]:
        return [each["metadata"]["name"] for each in objects(given) if each["kind"] == "Job"]

    other = merged(TRAINER, {"trainer": {"config": "model: x\noutput: runs/two\n"}})
    assert names(TRAINER) == names(merged(TRAINER, {"gateway": {"replicas": 5}}))
    assert names(TRAINER) != names(other)


def test_training_takes_a_process_a_gpu_and_publishes_what_came_of_it() -> None:
    (job,) = [each for each in objects(FEATURES["training"]) if each["kind"] == "Job"]
    pod = job["spec"]["template"]["spec"]
    train, publish = pod["initContainers"][0], pod["containers"][0]
    assert train["command"] == ["torchrun", "--standalone", "--nproc_per_node=8", "-m", "model_store.training"]
    assert publish["args"][:4] == ["publish", "Qwen/Qwen2.5-VL-3B-Instruct", "runs/one", "/scratch/my-gmr"]


def test_the_rules_and_dashboards_are_those_of_the_repository(tmp_path: Path) -> None:
    found = objects(FEATURES["monitoring"])
    rules = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "PrometheusRule"}
    files = {f"rerank-{path.stem}": yaml.safe_load(path.read_text()) for path in (ROOT / "deploy/alerts").glob("*.yaml")}
    assert rules == files
    assert rules
    for name, spec in rules.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    checked = subprocess.run(
        ["promtool", "check", "rules", *sorted(map(str, tmp_path.glob("*.yaml")))], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    boards = {path.name for path in (ROOT / "deploy/dashboards").glob("*.json")}
    shown = [each["data"] for each in found if each["kind"] == "ConfigMap" and "grafana_dashboard" in each["metadata"]["labels"]]
    assert {name.removeprefix("rerank-") for data in shown for name in data} == boards
    assert boards
    assert all(json.loads(text)["panels"] for data in shown for text in data.values())


def test_the_evaluation_measures_the_folder_that_was_loaded_and_compared() -> None:
    found = objects(FEATURES["evaluation"])
    (job,) = [each for each in found if each["kind"] == "CronJob"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"][1] == pod["initContainers"][1]["workingDir"]
    mounted = [each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each]
    assert [one(found, "ConfigMap", name)["data"] for name in mounted] == [{"SHA256SUMS": f"{'c' * 64}  a.json\n"}]
