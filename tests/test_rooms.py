"""Tests of a room are left out while nothing that they read has changed since they passed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms import EVERYTHING, ROOT, Rooms

TABLE = """
always = ["tests/one/test_page.py"]

[sets]
common = ["constraints.txt"]
library = ["library/*.py"]

[[room]]
tests = ["tests/one"]
sets = ["library"]

[[room]]
tests = ["tests/two"]
reads = ["pages"]
"""
FILES = {
    "tests/rooms.toml": TABLE,
    "tests/conftest.py": "pytest_plugins = ('tests.rooms',)",
    "tests/__init__.py": "",
    "tests/one/__init__.py": "",
    "tests/two/__init__.py": "",
    "tests/one/test_it.py": "def test_it():\n    pass\n",
    "tests/one/test_page.py": "def test_page():\n    pass\n",
    "tests/two/test_it.py": "from pathlib import Path\n\n\ndef test_it():\n"
    "    assert 'well' in Path('pages/page.md').read_text()\n",
    "tests/test_free.py": "def test_free():\n    pass\n",
    "library/module.py": "",
    "library/inner/module.py": "",
    "pages/page.md": "well",
    "constraints.txt": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "rooms.py", tmp_path / "tests" / "rooms.py")
    (tmp_path / ".gitignore").write_text("__pycache__\n.pytest_cache\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def ran(tree: Path, *arguments: str, everything: bool = False) -> list[str]:
    """The tests that a run in the tree ran, whether they passed or not."""
    environment = {name: value for name, value in os.environ.items() if name != EVERYTHING}
    environment["PYTHONPATH"] = str(ROOT)
    if everything:
        environment[EVERYTHING] = "1"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = [line.split(" ")[0] for line in done.stdout.splitlines() if "::" in line]
    return sorted({line for line in lines if line.startswith("tests/")})


IN_ONE = ["tests/one/test_it.py::test_it", "tests/one/test_page.py::test_page"]
IN_TWO = ["tests/two/test_it.py::test_it"]
FREE = ["tests/test_free.py::test_free"]
ALL = sorted([*IN_ONE, *IN_TWO, *FREE])


@pytest.mark.slow
def test_what_passed_as_it_is_is_left_out(tree: Path) -> None:
    assert ran(tree, "tests") == ALL
    assert not Rooms(tree).record.exists()
    assert ran(tree, "tests", everything=True) == ALL
    assert set(json.loads(Rooms(tree).record.read_text())) == {"tests/one", "tests/two"}
    assert ran(tree, "tests") == sorted([*FREE, IN_ONE[1]])
    assert ran(tree, "tests/two") == []  # and it ends well

    (tree / "library/inner/module.py").write_text("x = 1")  # nobody reads it
    assert ran(tree, "tests/one") == [IN_ONE[1]]
    (tree / "library/module.py").write_text("x = 1")
    assert ran(tree, "tests/one") == IN_ONE
    assert ran(tree, "tests/two") == []
    (tree / "constraints.txt").write_text("pytest==1")
    assert ran(tree, "tests/two") == IN_TWO


@pytest.mark.slow
def test_neither_failures_nor_parts_of_a_room_are_recorded(tree: Path) -> None:
    (tree / "pages/page.md").write_text("ill")
    ran(tree, "tests", everything=True)
    assert set(Rooms(tree).passed) == {"tests/one"}
    (tree / "pages/page.md").write_text("well")
    ran(tree, "tests/two/test_it.py", everything=True)
    ran(tree, "tests/two", "-k", "it", everything=True)
    assert set(Rooms(tree).passed) == {"tests/one"}
    ran(tree, "tests/two", everything=True)
    assert set(Rooms(tree).passed) == {"tests/one", "tests/two"}


def test_a_new_file_of_a_room_changes_its_digest_and_no_other(tree: Path) -> None:
    before = Rooms(tree).digests
    (tree / "tests/one/test_new.py").write_text("")
    after = Rooms(tree).digests
    assert before["tests/one"] != after["tests/one"]
    assert before["tests/two"] == after["tests/two"]
    (tree / "tests/one/test_page.py").write_text("# it always runs")
    assert Rooms(tree).digests == after


def test_without_git_nothing_is_left_out(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    assert not Rooms(tree).digests
    assert not Rooms(tree).unchanged


def test_every_path_of_the_table_is_there() -> None:
    rooms = Rooms(ROOT)
    paths = {path for found in rooms.reads.values() for path in found} | rooms.always
    missing = [path for path in paths if not any(ROOT.glob(path))]
    assert missing == []
