"""Tests that run only where something that they read has changed since they passed.

`rooms.toml` says which tests, and what they read; `passed.json` has the digest of all of it as it
was when they last passed. `make test` leaves out those whose digest is still that one, and says so;
`make test-all` runs everything, and writes the digests of what passed. Without git nothing is left
out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from model_store.files import atomic_path

ROOT = Path(__file__).parents[1]
EVERYTHING = "TEST_ALL"
"""The environment variable of `make test-all`."""


@dataclass(frozen=True)
class Rooms:
    """The rooms of a source tree, whose paths are relative to `root`."""

    root: Path

    @cached_property
    def reads(self) -> dict[str, list[str]]:
        """Paths that each room's tests read, by the tests' own path."""
        table = self._table
        found: dict[str, list[str]] = {}
        for room in table["room"]:
            names = [name for key in room.get("sets", ()) for name in table["sets"][key]]
            for tests in room["tests"]:
                found[tests] = [tests, *table["sets"]["common"], *names, *room.get("reads", ())]
        return found

    @cached_property
    def always(self) -> frozenset[str]:
        """Test files of rooms that run whatever has changed."""
        return frozenset(self._table.get("always", ()))

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of what each room's tests read; empty without git."""
        contents = {name: self._content(name) for name in self._files}
        found: dict[str, str] = {}
        if contents:
            for tests, paths in self.reads.items():
                read = [n for n in contents if n not in self.always and _is_in(n, paths)]
                lines = [f"{name} {contents[name]}" for name in sorted(read)]
                found[tests] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]
        return found

    @cached_property
    def passed(self) -> dict[str, str]:
        """The digests with which tests last passed."""
        return self._recorded()

    @property
    def record(self) -> Path:
        """The file of digests."""
        return self.root / "tests" / "passed.json"

    @cached_property
    def unchanged(self) -> frozenset[str]:
        """Rooms' tests that have passed with all that they read as it is."""
        digests = self.digests.items()
        return frozenset(tests for tests, now in digests if self.passed.get(tests) == now)

    def room_of(self, path: Path) -> str | None:
        """The room of a test file; None where it has none, or always runs."""
        if not path.is_relative_to(self.root):
            return None
        name = path.relative_to(self.root).as_posix()
        if name in self.always:
            return None
        return next((tests for tests in self.reads if _is_in(name, [tests])), None)

    def write(self, passed: set[str]) -> None:
        """Record the digests of rooms whose tests have passed, beside those of other rooms."""
        digests = {tests: now for tests, now in self.digests.items() if tests in passed}
        with (self.root / "tests" / "rooms.toml").open("rb") as table:
            fcntl.flock(table, fcntl.LOCK_EX)  # parts of the tests end at the same time
            found = self._recorded() | digests
            kept = {tests: found[tests] for tests in sorted(found) if tests in self.reads}
            with atomic_path(self.record) as draft:
                draft.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    def _recorded(self) -> dict[str, str]:
        path = self.record
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    @cached_property
    def _table(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "tests" / "rooms.toml").read_text(encoding="utf-8"))

    @cached_property
    def _files(self) -> list[str]:
        """Files that git knows, or would."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        try:
            listed = subprocess.run(command, cwd=self.root, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return []
        return [name for name in listed.stdout.decode().split("\0") if name]

    def _content(self, name: str) -> str:
        path = self.root / name
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def _is_in(name: str, paths: list[str]) -> bool:
    """Whether a file is one of the paths, in one of them, or fits the pattern of one."""
    return any(
        name == path
        or name.startswith(f"{path}/")
        or (fnmatch(name, path) and name.count("/") == path.count("/"))
        for path in paths
    )


@dataclass(eq=False)
class _Run:
    """A run of pytest: rooms that it leaves out, rooms that it ran, and those with a failure."""

    rooms: Rooms
    left_out: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def pytest_report_header(self) -> Iterator[str]:
        if not os.environ.get(EVERYTHING) and self.rooms.unchanged:
            names = ", ".join(sorted(self.rooms.unchanged))
            yield f"left out, since they passed as they are (`make test-all` runs them): {names}"

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        room = self.rooms.room_of(collection_path)
        if room is None or collection_path.is_dir() or os.environ.get(EVERYTHING):
            return None
        if room not in self.rooms.unchanged:
            return None
        self.left_out.add(room)
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._fail(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        room = self.rooms.room_of(ROOT / report.nodeid.partition("::")[0])
        if room:
            self.ran.add(room)
        if report.failed:
            self._fail(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.left_out:
            session.exitstatus = pytest.ExitCode.OK
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if os.environ.get(EVERYTHING) and ended and not _is_selection(session.config):
            self.rooms.write(self.ran - self.failed)

    def _fail(self, node: str) -> None:
        room = self.rooms.room_of(ROOT / node.partition("::")[0])
        if room:
            self.failed.add(room)


def _is_selection(config: pytest.Config) -> bool:
    """Whether a run has only some tests of a folder."""
    option = config.option
    files = any(Path(argument.partition("::")[0]).suffix for argument in config.args)
    return bool(option.keyword or option.markexpr or option.deselect or files)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Run(Rooms(ROOT)), "rooms")
