"""A folder whose own files describe its prompt is scored by them, whatever name it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_store.checkpoint import resolve
from model_store.inspection.inspection import inspect_checkpoint
from tests.chat_rerankers import (
    IDENTITY,
    QWEN3_TEMPLATE,
    ZERANK_TEMPLATE,
    put,
    stated,
    write_gmr,
    write_prompts,
)

NAME = "qwen3-reranker-legal"
OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "another prompt": (ZERANK_TEMPLATE, {}, "prompt"),
    "another instruction": (QWEN3_TEMPLATE, {"prompt": "Find the law"}, "prompt"),
    "labels the other way round": (QWEN3_TEMPLATE, {"labels": ("no", "yes")}, "labels"),
    "one label": (QWEN3_TEMPLATE, {"labels": ("yes",)}, "labels"),
}


@pytest.mark.parametrize("changes", [{}, {"activation": IDENTITY}], ids=["sigmoid", "raw scores"])
def test_a_name_stands_where_the_files_say_the_same(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = write_prompts(tmp_path / NAME, QWEN3_TEMPLATE, **changes)
    found = inspect_checkpoint(resolve(str(folder), weights=False))
    assert (found.family, found.reason) == ("qwen3-reranker", f"its name is {NAME}")
    assert list(found.others) == ["sentence-transformers"]

    assert resolve(str(write_gmr(tmp_path / "gmr-legal"))).manifest.family == "gmr"


@pytest.mark.parametrize("case", OTHERS)
def test_files_are_more_certain_than_a_name(tmp_path: Path, case: str) -> None:
    template, changes, differing = OTHERS[case]
    folder = write_prompts(tmp_path / NAME, template, **changes)
    found = inspect_checkpoint(resolve(str(folder), weights=False))
    assert found.family == "sentence-transformers"
    assert found.reason.endswith(f", whose {differing} is not that of qwen3-reranker")
    assert list(found.others) == ["qwen3-reranker"]

    # a family that the operator names is not asked about
    named = resolve(str(folder), weights=False, family="qwen3-reranker")
    assert named.manifest.family == "qwen3-reranker"


def test_files_are_more_certain_than_the_name_of_the_base(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "legal", ZERANK_TEMPLATE)
    config = stated(folder, "config.json") | {"_name_or_path": "Qwen/Qwen3-Reranker-0.6B"}
    put(folder, "config.json", config)
    assert resolve(str(folder), weights=False).manifest.family == "sentence-transformers"


def test_the_name_of_a_folder_is_more_certain_than_that_of_its_base(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "ERank-4B", QWEN3_TEMPLATE)
    (folder / "modules.json").unlink()
    config = stated(folder, "config.json") | {"_name_or_path": "Qwen/Qwen3-Reranker-4B"}
    put(folder, "config.json", config)
    assert resolve(str(folder), weights=False).manifest.family == "erank"

    folder = folder.rename(tmp_path / "legal")
    found = inspect_checkpoint(resolve(str(folder), weights=False))
    assert found.family == "qwen3-reranker"
    assert found.reason == "_name_or_path of its config.json is qwen3-reranker-4b"


@pytest.mark.parametrize("name", ["zerank", "zerank-2", "legal-zerank-1-small"])
def test_a_name_is_more_certain_than_the_network(tmp_path: Path, name: str) -> None:
    folder = write_prompts(tmp_path / name, QWEN3_TEMPLATE)
    (folder / "modules.json").unlink()
    (folder / "1_LogitScore" / "config.json").unlink()
    assert resolve(str(folder), weights=False).manifest.family == "zerank"
