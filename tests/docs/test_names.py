"""Every setting and log message that pages and configuration files name exists in the code."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from service.cli.client.settings import ClientSettings
from service.cli.settings import RENAMED
from service.gateway.settings import GatewaySettings
from service.worker.settings import WorkerSettings
from tests.docs.pages import CONFIGURATION, PAGES, ROOT, name_of

SOURCES = [
    path for room in ("service", "model_store") for path in sorted((ROOT / room).rglob("*.py"))
]
SETTINGS = {
    f"RERANK_{name.upper()}"
    for kind in (GatewaySettings, WorkerSettings, ClientSettings)
    for name in kind.model_fields
}
_SETTING = re.compile(r"\bRERANK_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*])")
_ENGINE = "RERANK_ENGINE_"
_FOREIGN = {"RERANK_PORT"}
"""What Kubernetes would set for a Service called rerank."""
_NAMES_OLD_ONES = {ROOT / "service/cli/settings.py", ROOT / "CHANGELOG.md"}
"""Files that name settings by the names that they had."""


@cache
def engine_arguments() -> str:
    """The source in which the installed vLLM declares its engine arguments."""
    script = "import importlib.util; print(importlib.util.find_spec('vllm').origin)"
    asked = subprocess.run(
        [ROOT / ".venv-vllm/bin/python", "-c", script], capture_output=True, text=True, check=True
    )
    return (Path(asked.stdout.strip()).parent / "engine" / "arg_utils.py").read_text(
        encoding="utf-8"
    )


def is_setting(name: str) -> bool:
    if name in SETTINGS | _FOREIGN:
        return True
    if not name.startswith(_ENGINE):
        return False
    argument = name.removeprefix(_ENGINE).lower()
    return re.search(rf"^    {argument}:", engine_arguments(), re.MULTILINE) is not None


def said_in(file: Path) -> str:
    """A file's text; for Python, the contents of its strings."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return text
    return "\n".join(
        str(node.value) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)
    )


@pytest.mark.parametrize("file", [*PAGES, *CONFIGURATION, *SOURCES], ids=name_of)
def test_settings_that_are_named_exist(file: Path) -> None:
    named = set(_SETTING.findall(said_in(file)))
    if file in _NAMES_OLD_ONES:
        named -= RENAMED.keys()
    assert [name for name in sorted(named) if not is_setting(name)] == []


def test_a_setting_that_is_none_would_be_noticed() -> None:
    assert _SETTING.findall("`RERANK_MAX_DOCUMENT` RERANK_* RERANK_ENGINE_*") == [
        "RERANK_MAX_DOCUMENT"
    ]
    assert not is_setting("RERANK_MAX_DOCUMENT")
    assert not is_setting("RERANK_ENGINE_MAX_SEQS")
    assert is_setting("RERANK_ENGINE_MAX_NUM_SEQS")


def messages() -> str:
    """Every string in the code, which includes log messages and errors."""
    return "\n".join(said_in(path) for path in SOURCES)


def test_messages_that_the_runbook_looks_for_are_the_services() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    quoted = set(
        re.findall(
            r'(?<!`)"([^"`\n{}=]+)"(?!`)', re.sub(r"`[^`]*`|```.*?```", "", text, flags=re.DOTALL)
        )
    )
    assert len(quoted) > 5
    known = messages()
    assert {each for each in quoted if each not in known} == set()
