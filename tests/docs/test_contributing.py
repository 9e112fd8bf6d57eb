"""New contributors find a short README, pre-commit hooks equal to `make lint`, a workflow that runs
`.ci/run`, types in both packages, and a dated release."""

from __future__ import annotations

import re
import shlex
import tomllib
from datetime import date

import yaml

from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAX_README_LINES = 220


def hooks() -> list[list[str]]:
    """The words of each hook's command."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    repositories = yaml.safe_load(text)["repos"]
    assert [each["repo"] for each in repositories] == ["local"]
    return [shlex.split(hook["entry"]) for hook in repositories[0]["hooks"]]


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES


def test_a_hook_runs_a_tool_of_the_dev_extra_that_make_lint_runs_too() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    linted = re.findall(r"\$\(BIN\)/([\w-]+)", recipe[1])
    dev = PROJECT["project"]["optional-dependencies"]["dev"]
    installed = {re.split(r"[<>=\[]", requirement)[0] for requirement in dev}
    programs = set()
    for words in hooks():
        folder, _, program = words[0].rpartition("/")
        assert folder == ".venv/bin"
        assert program in installed
        assert program in linted
        programs.add(program)
    assert programs == {"ruff", "mypy", "typos"}


def test_the_workflow_runs_what_anyone_runs() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]


def test_both_packages_say_that_they_have_types() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package in ("service", "model_store"):
        assert "py.typed" in data[package]
        assert (ROOT / package / "py.typed").is_file()


def test_the_version_has_a_dated_section_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = dict(re.findall(r"^## (\d+\.\d+\.\d+) - (\S+)$", changelog, re.MULTILINE))
    assert date.fromisoformat(dated[PROJECT["project"]["version"]])
