"""The further objects of a release: its test, jobs, rules and dashboards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import TRAINER, Values, complaint, merged, objects, one
from tests.deploy.features import FEATURES
from tests.deploy.helm import ROOT


def test_the_question_of_helm_test_is_answered_by_the_service(server: str) -> None:
    command = one(objects(), "Pod", "rerank-test")["spec"]["containers"][0]["command"]
    asked = subprocess.run(
        [sys.executable, *command[1:]],
        env={"URL": server},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("gmr-tiny ")
    refused = subprocess.run(
        [sys.executable, *command[1:]],
        env={"URL": f"{server}/nowhere"},
        capture_output=True,
        check=False,
    )
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
    assert train["command"] == [
        "torchrun",
        "--standalone",
        "--nproc_per_node=8",
        "-m",
        "model_store.training",
    ]
    assert publish["args"][:4] == [
        "publish",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "runs/one",
        "/scratch/my-gmr",
    ]


def test_the_rules_and_dashboards_are_those_of_the_repository(tmp_path: Path) -> None:
    found = objects(FEATURES["monitoring"])
    rules = {
        each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "PrometheusRule"
    }
    files = {
        f"rerank-{path.stem}": yaml.safe_load(path.read_text().replace(*LINKED))
        for path in (ROOT / "deploy/alerts").glob("*.yaml")
    }
    assert rules == files
    assert rules
    for name, spec in rules.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    checked = subprocess.run(
        ["promtool", "check", "rules", *sorted(map(str, tmp_path.glob("*.yaml")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    boards = {path.name for path in (ROOT / "deploy/dashboards").glob("*.json")}
    shown = [
        each["data"]
        for each in found
        if each["kind"] == "ConfigMap" and "grafana_dashboard" in each["metadata"]["labels"]
    ]
    assert {name.removeprefix("rerank-") for data in shown for name in data} == boards
    assert boards
    assert all(json.loads(text)["panels"] for data in shown for text in data.values())


def alerts_of(given: Values) -> dict[str, dict[str, str]]:
    """The annotations of each alert that a release installs, by the alert's name."""
    found: dict[str, dict[str, str]] = {}
    for each in objects(given):
        if each["kind"] == "PrometheusRule":
            for group in each["spec"]["groups"]:
                found |= {
                    rule["alert"]: rule["annotations"] for rule in group["rules"] if "alert" in rule
                }
    return found


LINKED = ("runbook: docs/runbook.md#", "runbook_url: http://rerank.search.svc/runbook#")
HOST = {"hosts": ["rerank.example.com"], "tlsSecret": "tls", "path": "/search"}
LINKS: dict[str, Values] = {
    "http://rerank.search.svc/runbook": {},
    "http://rerank.search.svc:8000/runbook": {"service": {"port": 8000}},
    "https://rerank.example.com/search/runbook": {"ingress": {"enabled": True} | HOST},
    "https://wiki.example.com/runbook": {
        "ingress": {"enabled": True} | HOST,
        "monitoring": {"rules": {"runbookUrl": "https://wiki.example.com/runbook"}},
    },
    "http://10.0.0.1:8080/gmr/docs/runbook.md?version=3": {
        "gateway": {"settings": {"RERANK_PAGES": False}},
        "monitoring": {
            "rules": {"runbookUrl": "http://10.0.0.1:8080/gmr/docs/runbook.md?version=3"}
        },
    },
}


@pytest.mark.parametrize("url", LINKS)
def test_alerts_link_to_the_gateways_page_or_to_the_one_that_the_operator_names(url: str) -> None:
    linked = alerts_of(merged(FEATURES["monitoring"], LINKS[url]))
    assert linked
    assert {name: said.get("runbook_url") for name, said in linked.items()} == {
        name: f"{url}#{name.lower()}" for name in linked
    }


def test_without_pages_and_without_a_url_alerts_have_no_link() -> None:
    """A link that leads nowhere is none."""
    without = {"gateway": {"settings": {"RERANK_PAGES": False}}}
    plain = alerts_of(merged(FEATURES["monitoring"], without))
    assert all(said["runbook"] == f"docs/runbook.md#{name.lower()}" for name, said in plain.items())
    assert all("runbook_url" not in said for said in plain.values())


@pytest.mark.parametrize(
    "url", ["docs/runbook.md", "https://wiki.example.com/#here", "https://wiki.example.com/a b"]
)
def test_a_link_that_could_not_work_is_refused(url: str) -> None:
    given = merged(FEATURES["monitoring"], {"monitoring": {"rules": {"runbookUrl": url}}})
    assert "monitoring/rules/runbookUrl" in complaint(given).replace(".", "/")


def test_the_evaluation_measures_the_folder_that_was_loaded_and_compared() -> None:
    found = objects(FEATURES["evaluation"])
    (job,) = [each for each in found if each["kind"] == "CronJob"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"][1] == pod["initContainers"][1]["workingDir"]
    mounted = [each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each]
    assert [one(found, "ConfigMap", name)["data"] for name in mounted] == [
        {"SHA256SUMS": f"{'c' * 64}  a.json\n"}
    ]
