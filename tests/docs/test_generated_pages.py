"""Generated pages are up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["settings", "metrics"])
def test_a_page_is_what_its_command_prints(page: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "service.cli", page], capture_output=True, text=True, check=True
    ).stdout
    assert (DOCS / f"{page}.md").read_text(encoding="utf-8") == printed, (
        f"run: gmr {page} > docs/{page}.md"
    )
