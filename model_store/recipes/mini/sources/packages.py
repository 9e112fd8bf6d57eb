"""Packages of public registries that the recipe learns from: fetched by name, checked, unpacked.

Depends on apt-get, dpkg-deb, pip and npm, which need no root for this. Invariant: a version that is
written here is unpacked only with its SHA-256; another one only where Debian no longer has it and
has a later one, and then the folder has a record of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from model_store.files import sha256

Registry = Literal["Debian", "PyPI", "npm"]

_RECORD = ".package.json"


class SourceUnavailable(Exception):
    """A package that cannot be fetched; the text is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package with its SHA-256, and what it gives."""

    registry: Registry
    name: str
    version: str
    digest: str
    licence: str
    gives: str


def _listed() -> Iterator[Package]:
    path = Path(__file__).with_name("packages.json")
    for row in json.loads(path.read_text(encoding="utf-8")):
        yield Package(**row)


PACKAGES = tuple(_listed())


def unpacked(package: Package, folder: Path) -> Path:
    """The folder of an unpacked package under `folder`; fetched if it is not there.

    Of a Debian package whose version left the registry, which updates do, the latest is taken.
    Raises `SourceUnavailable`.
    """
    target = folder / package.name
    if target.exists():
        return target

    file, taken = _fetched(package, folder / "fetched" / package.name)
    draft = folder / f".{package.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _UNPACK[package.registry](file, draft)
    (draft / _RECORD).write_text(json.dumps(asdict(taken)), encoding="utf-8")
    draft.rename(target)
    return target


def taken_packages(folder: Path, packages: Sequence[Package] = PACKAGES) -> list[Package]:
    """The packages that were unpacked under `folder`, each in the version that was taken."""
    taken: list[Package] = []
    for package in packages:
        record = folder / package.name / _RECORD
        if record.exists():
            taken.append(Package(**json.loads(record.read_text(encoding="utf-8"))))
    return taken


def source_table(taken: Sequence[Package], packages: Sequence[Package] = PACKAGES) -> str:
    """Rows of the card's table in Markdown; a later version than the one written here says so."""
    written = {package.name: package.version for package in packages}
    lines = ["| package | version | licence | gives |", "|---|---|---|---|"]
    for package in taken:
        version = package.version
        if version != written.get(package.name, version):
            version += f" ({written[package.name]} has left {package.registry})"
        name = f"{package.registry}'s {package.name}"
        lines.append(f"| {name} | {version} | {package.licence} | {package.gives} |")
    return "\n".join(lines)


def _fetched(package: Package, folder: Path) -> tuple[Path, Package]:
    """The package's file, and the version that it is."""
    try:
        file = _downloaded(package, folder)
    except SourceUnavailable:
        if package.registry != "Debian":
            raise
        return _latest(package, folder)

    found = sha256(file)
    if found != package.digest:
        raise SourceUnavailable(
            f"{package.registry}'s {package.name} {package.version} should have the SHA-256"
            f" {package.digest}, and has {found}: the registry has another build of it now."
        )
    return file, package


def _latest(package: Package, folder: Path) -> tuple[Path, Package]:
    """Debian's latest version, where it is later than the one that is written here."""
    file = _downloaded(replace(package, version=""), folder)
    command = ["dpkg-deb", "--field", str(file), "Version"]
    version = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    later = ["dpkg", "--compare-versions", version, "gt", package.version]
    if subprocess.run(later, check=False).returncode:
        raise SourceUnavailable(
            f"Debian has neither {package.name} {package.version} nor a later version, but"
            f" {version}."
        )
    return file, replace(package, version=version, digest=sha256(file))


def _downloaded(package: Package, folder: Path) -> Path:
    """The one file that the registry's client fetches to an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _FETCH[package.registry](package, folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) != 1:
        raise SourceUnavailable(f"{package.registry}'s {package.name} is {len(files)} files.")
    return files[0]


def _run(package: Package, command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=1800
        )
    except FileNotFoundError:
        raise SourceUnavailable(f"{command[0]} is not installed, and fetches packages.") from None
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(f"{package.name} did not come within half an hour.") from None

    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it says nothing"]
        raise SourceUnavailable(
            f"{package.registry}'s {package.name} {package.version} cannot be fetched"
            f" ({said[-1][:300]})."
        )


def _fetch_debian(package: Package, folder: Path) -> None:
    asked = f"{package.name}={package.version}" if package.version else package.name
    _run(package, ["apt-get", "download", asked], folder)


def _fetch_pypi(package: Package, folder: Path) -> None:
    pinned = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", pinned]
    _run(package, command, folder)


def _fetch_npm(package: Package, folder: Path) -> None:
    _run(package, ["npm", "pack", "--silent", f"{package.name}@{package.version}"], folder)


def _unpack_debian(file: Path, folder: Path) -> None:
    command = ["dpkg-deb", "-x", str(file), str(folder)]
    subprocess.run(command, check=True)


def _unpack_pypi(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)  # noqa: S202 - its digest is known


def _unpack_npm(file: Path, folder: Path) -> None:
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")


_FETCH: dict[Registry, Callable[[Package, Path], None]] = {
    "Debian": _fetch_debian,
    "PyPI": _fetch_pypi,
    "npm": _fetch_npm,
}
_UNPACK: dict[Registry, Callable[[Path, Path], None]] = {
    "Debian": _unpack_debian,
    "PyPI": _unpack_pypi,
    "npm": _unpack_npm,
}
