"""A wheel built from the checkout's files, and a fresh environment that has it and nothing else of
the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "model_store")
_BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")
_BUILD_SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def checkout_files(*paths: str) -> list[str]:
    """The checkout's files under these paths, new ones included, ignored and deleted ones not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `python -m build` does it: a source archive, and the wheel from that
    archive. Neither step uses the network."""
    folder = tmp_path_factory.mktemp("build")
    source, built = folder / "source", folder / "built"
    for name in checkout_files(*_BUILD_FILES, *PACKAGES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    built.mkdir()

    subprocess.run(
        [sys.executable, "-c", _BUILD_SDIST, str(built)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (archive,) = built.glob("*.tar.gz")
    _pip("wheel", "--no-build-isolation", "--wheel-dir", str(built), str(archive))
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it. Beside the wheel it has links to the packages that
    `gmr-rerank[torch]` requires, and to no other."""
    environment = tmp_path_factory.mktemp("installed") / "environment"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)],
        check=True,
        capture_output=True,
    )
    _pip("--python", str(environment / "bin" / "python"), "install", str(wheel))
    (site_packages,) = environment.glob("lib/python*/site-packages")

    (project,) = distributions(path=[str(site_packages)])
    for requirement in _required(project, {"torch"}).values():
        for name in _top_level(requirement):
            link = site_packages / name
            if not link.exists():
                link.symlink_to(Path(str(requirement.locate_file(name))).resolve())
    return environment


def _pip(*arguments: str) -> None:
    """Run pip without an index and without dependencies."""
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_CACHE_DIR": "1"}
    subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        env=os.environ | offline,
        check=True,
        capture_output=True,
    )


def _required(project: Distribution, extras: set[str]) -> dict[str, Distribution]:
    """The distributions that a project with these extras requires, directly or not, by name."""
    found: dict[str, Distribution] = {}
    seen: set[Requirement] = set()
    unvisited = list(_requirements(project, extras))
    while unvisited:
        requirement = unvisited.pop()
        if requirement in seen:
            continue
        seen.add(requirement)
        required = distribution(requirement.name)
        found[requirement.name] = required
        unvisited += _requirements(required, requirement.extras)
    return found


def _requirements(holder: Distribution, extras: set[str]) -> Iterator[Requirement]:
    """The requirements that apply on this machine with these extras."""
    for text in holder.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def _top_level(installed: Distribution) -> set[str]:
    """The files and folders of a distribution that lie in `site-packages` itself."""
    names = {file.parts[0] for file in installed.files or ()}
    return {
        name for name in names if name not in ("..", "__pycache__") and not name.endswith(".pth")
    }
