"""Alerts fire in the cases in which they should, and in no others, by promtool; each has a
section in the runbook."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.dashboards.build import DASHBOARDS
from tests.observability.rules import ALERTS, FILES, ROOT, Rule, rules_of

CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
_MATCHED = re.compile(r'alertname(=~|!~|!=|=)"([^"]*)"')


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_promtool_finds_nothing_to_say() -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", *FILES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_are_quiet_as_the_cases_say(cases: Path) -> None:
    tested = promtool("test", "rules", cases)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_case_that_does_not_hold_is_noticed(tmp_path: Path) -> None:
    """A case in which an alert must not fire fails if it does."""
    (file,) = (each for each in CASES if each.stem == "worker")
    page = yaml.safe_load(file.read_text(encoding="utf-8"))
    page["rule_files"] = [str(each) for each in FILES]
    page["tests"][0]["promql_expr_test"][0]["exp_samples"] = []
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(page), encoding="utf-8")
    assert promtool("test", "rules", tmp_path / "worker.yaml").returncode != 0


def asked() -> Iterator[tuple[Rule, set[str], set[str]]]:
    """Every query for alerts in the test cases: the query, the alerts that it covers, and those
    that fire."""
    for file in CASES:
        page = yaml.safe_load(file.read_text(encoding="utf-8"))
        there = {
            rule["alert"]
            for path in page["rule_files"]
            for rule in rules_of(file.parent / path)
            if "alert" in rule
        }
        for case in page["tests"]:
            for question in case["promql_expr_test"]:
                if "ALERTS" in question["expr"]:
                    fired = set(
                        re.findall(
                            r'alertname="(\w+)"',
                            " ".join(each["labels"] for each in question["exp_samples"]),
                        )
                    )
                    yield (
                        question,
                        {alert for alert in there if is_about(question["expr"], alert)},
                        fired,
                    )


def is_about(expr: str, alert: str) -> bool:
    for operator, value in _MATCHED.findall(expr):
        matches = re.fullmatch(value, alert) is not None if "~" in operator else value == alert
        if matches == operator.startswith("!"):
            return False
    return True


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires = {alert for _, _, fired in asked() for alert in fired}
    quiet = {alert for _, about, fired in asked() for alert in about - fired}
    assert fires == set(ALERTS)
    assert quiet == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_all_that_its_reader_needs(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{alert.lower()}"
    assert len(rule["annotations"]["summary"]) < 120
    assert rule["annotations"]["description"].endswith(".")


def test_the_command_of_the_page_makes_links_of_the_plain_rules(tmp_path: Path) -> None:
    """Relative links do not work in notifications: the page's command makes them absolute in
    every rule."""
    (command,) = re.findall(
        r"^sed -i .*$",
        (ROOT / "docs" / "observability.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    (tmp_path / "deploy" / "alerts").mkdir(parents=True)
    for file in FILES:
        (tmp_path / "deploy" / "alerts" / file.name).write_text(
            file.read_text(encoding="utf-8"), encoding="utf-8"
        )
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    changed = sorted((tmp_path / "deploy" / "alerts").glob("*.yaml"))
    linked = {
        rule["alert"]: rule["annotations"]
        for file in changed
        for rule in rules_of(file)
        if "alert" in rule
    }
    page = "https://wiki.example.com/runbook"
    assert {name: said.get("runbook_url") for name, said in linked.items()} == {
        name: f"{page}#{name.lower()}" for name in ALERTS
    }
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", *changed).returncode == 0


def test_what_an_alert_says_of_its_labels_is_there_when_it_fires() -> None:
    for question, _, _ in asked():
        for sample in question["exp_samples"]:
            named = re.match(r'ALERTS\{alertname="(\w+)"', sample["labels"])
            if named:
                said = " ".join(ALERTS[named[1]]["annotations"].values())
                labels = set(re.findall(r"(\w+)=", sample["labels"]))
                assert set(re.findall(r"\$labels\.(\w+)", said)) <= labels, named[1]


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    assert sorted(headings(text)) == sorted(ALERTS)
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert all(f"**{word}**" in section for word in ("Means", "First look", "Fix")), section


def headings(text: str) -> list[str]:
    return re.findall(r"^## (\w+)$", text, re.MULTILINE)


def test_the_runbook_sends_nobody_to_what_is_not_there() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    titles = {panel.title for dashboard in DASHBOARDS for panel in dashboard.panels()}
    assert set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", text)) <= titles
    settings = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    both = text + (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    named = {
        name
        for name in re.findall(r"RERANK_[A-Z_]+", both)
        if not name.startswith("RERANK_ENGINE_")
    }
    assert {name for name in named if f"`{name}`" not in settings} == set()
    anchors = {heading.lower() for heading in headings(text)}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= anchors
