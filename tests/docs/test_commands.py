"""Every command in the pages works: programs, subcommands, options, make targets, values, extras
and files exist."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from service.cli.main import app
from tests.docs.pages import (
    PAGES,
    ROOT,
    Command,
    anchors,
    commands,
    inline,
    inline_commands,
    links,
    name_of,
)

BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)
TYPED = [
    each for page in PAGES for each in commands(page) if re.fullmatch(r"[\w./-]*\w", each.words[0])
]
"""Without what is left of a quotation around $(...)."""
MENTIONED = [command for page in PAGES for command in inline_commands(page, "gmr")]
TARGETS = set(
    re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
FOLDERS = ("docs", "deploy", "docker", "examples", "tests", "service", "model_store")
TOOLS = {
    *(
        "base64",
        "bash",
        "cat",
        "cp",
        "curl",
        "docker",
        "git",
        "gmr",
        "grep",
        "helm",
        "kubectl",
        "make",
        "openssl",
        "pip",
        "python",
        "sed",
    ),
    *("for", "torchrun", "ACL", "CONFIG"),
}
"""Programs that readers have, and Redis' own commands."""


def gmr_of(command: Command) -> tuple[str, ...] | None:
    """The arguments of a `gmr` command line; None for another program."""
    return command.words[1:] if command.words[0].rpartition("/")[2] == "gmr" else None


def found(arguments: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """The command that the words name, and its remaining arguments."""
    command: Any = get_command(app)
    while arguments and hasattr(command, "commands"):
        if hasattr(command, "named"):  # a command that need not be named
            arguments = tuple(command.named(arguments))
        assert arguments[0].startswith("-") or arguments[0] in command.commands, (
            f"gmr has no {arguments[0]}"
        )
        if arguments[0].startswith("-"):
            break
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def expect_options(command: Any, arguments: tuple[str, ...]) -> None:
    known = {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    for word in arguments:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{command.name} has no option {word}"


def test_there_are_commands_to_look_at() -> None:
    assert len(TYPED) > 50
    assert len(MENTIONED) > 30


@pytest.mark.parametrize("command", TYPED, ids=str)
def test_a_command_that_is_printed_can_be_typed(command: Command) -> None:
    program = command.words[0].rpartition("/")[2]
    assert program in TOOLS, program
    if (arguments := gmr_of(command)) is not None:
        parts, left = found(arguments)
        expect_options(parts, left)
        # an argument that is missing or too many is refused
        parts.make_context(command.words[1], list(left))


@pytest.mark.parametrize("command", MENTIONED, ids=str)
def test_a_command_that_is_mentioned_exists(command: Command) -> None:
    expect_options(*found(command.words[1:]))


@BY_PAGE
def test_targets_of_make_exist(page: Path) -> None:
    typed = {
        word
        for each in commands(page)
        if each.words[0] == "make"
        for word in each.words[1:]
        if "=" not in word
    }
    said = {code.split()[1] for code in inline(page) if re.fullmatch(r"make [a-z-]+", code)}
    assert typed | said <= TARGETS


@BY_PAGE
def test_modules_that_python_runs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python3? -m ([\w.]+)|torchrun .*?-m ([\w.]+)", text):
        assert importlib.util.find_spec(next(filter(None, module))), module
    for script in re.findall(r"python3? ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


@BY_PAGE
def test_extras_that_pip_is_told_exist(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"(?:\.|gmr-rerank)\[([\w,]+)\]", page.read_text(encoding="utf-8"))
    assert {extra for each in named for extra in each.split(",")} <= set(
        project["optional-dependencies"]
    )


@BY_PAGE
def test_paths_of_the_repository_exist(page: Path) -> None:
    words = {word for each in commands(page) for word in each.words} | {
        word for code in inline(page) for word in code.split()
    }
    for word in sorted(words):
        path = word.strip("'\",").removeprefix("./")
        if path.partition("/")[0] in FOLDERS and re.fullmatch(r"[\w./*-]+", path) and "/" in path:
            # by `make secrets`, or by the reader
            made = path.startswith("deploy/compose/") and not (ROOT / path).exists()
            assert made or any(ROOT.glob(path.rstrip("/"))), path
        elif re.fullmatch(r"test_\w+\.py", path):
            assert any((ROOT / "tests").rglob(path)), path


@BY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@BY_PAGE
def test_values_of_the_chart_exist(page: Path) -> None:
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "values.yaml").read_text(encoding="utf-8"))
    words = [
        word for each in commands(page) if "--set" in each.words for word in each.words
    ] + inline(page)
    for word in words:
        path = word.partition("=")[0].partition(":")[0].partition(" ")[0]
        if (
            re.fullmatch(r"[a-z]\w*(\.[A-Za-z]\w*)+", path)
            and path.partition(".")[0] in values
            and "Dockerfile" not in path
        ):
            place: Any = values
            for part in path.split("."):
                # what is in an empty mapping is Kubernetes' own
                if not isinstance(place, dict) or not place:
                    break
                assert part in place, path
                place = place[part]
