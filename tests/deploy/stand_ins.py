"""Images that no registry is asked for: made of the Debian packages on this machine, under the
names that the real ones have.

What is built and run on them is real. A base of the same Debian release stands in for
`python:3.11-slim-bookworm`, images with nothing but a program for those of Redis and Prometheus.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

PYTHON_PACKAGES = (
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "libc-bin",
    "libstdc++6",
    "netbase",
)
PYTHON_PACKAGES += ("ca-certificates", "python3-pip", "python3-venv", "tzdata")
PYTHON_PACKAGES += (
    "apt",
    "debconf",
    "debian-archive-keyring",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
)
PYTHON_PACKAGES += ("mawk", "perl-base", "sed", "tar", "util-linux")
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Links into /usr on every Debian; packages of this release still name their files by them."""
_FROM_MASTER = {
    "usr/share/base-passwd/passwd.master": "etc/passwd",
    "usr/share/base-passwd/group.master": "etc/group",
}


def base_image(tar: Path) -> None:
    """Write a root file system with Debian's Python, and what it needs, as this machine has them
    installed; apt installs more of the same release, from where this machine's does."""
    packages = _with_what_they_need(PYTHON_PACKAGES)
    packaged = (_real(path) for path in _files(packages))
    files = {*packaged, *_MERGED, *_FROM_MASTER, "etc/ssl/certs/ca-certificates.crt"} - {""}
    with tarfile.open(tar, "w") as archive:
        for name in sorted(files):
            path = Path("/", name)
            if path.is_symlink() or path.exists():
                archive.add(path, _FROM_MASTER.get(name, name), recursive=False)
        for name, content in _package_database(packages).items():
            described = tarfile.TarInfo(name)
            described.size = len(content)
            archive.addfile(described, io.BytesIO(content))


def program_image(tar: Path, programs: Sequence[Path], *, folders: Sequence[str] = ()) -> None:
    """Write a root file system with programs in /usr/bin, the libraries they load, and empty
    folders that anyone may write to."""
    files = {f"usr/bin/{program.name}": program for program in programs}
    files |= {
        str(library).lstrip("/"): library for program in programs for library in _libraries(program)
    }
    with tarfile.open(tar, "w") as archive:
        for name, path in sorted(files.items()):
            archive.add(path.resolve(), name)
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(folder)


def missing_packages() -> list[str]:
    """The packages of the base that are not installed here."""
    query = [
        "dpkg-query",
        "--show",
        "--showformat",
        "${db:Status-Status} ${Package}\n",
        *PYTHON_PACKAGES,
    ]
    if not shutil.which("dpkg-query"):
        return list(PYTHON_PACKAGES)
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return sorted(
        set(PYTHON_PACKAGES)
        - {line.split()[1] for line in shown.splitlines() if line.startswith("installed ")}
    )


def _with_what_they_need(packages: Iterable[str]) -> list[str]:
    no = [
        f"--no-{what}"
        for what in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    ]
    command = ["apt-cache", "depends", "--recurse", "--installed", *no, *packages]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted({line.strip() for line in shown.splitlines() if re.match(r"[a-z0-9]", line)})


def _package_database(packages: Iterable[str]) -> dict[str, bytes]:
    """Files of dpkg and apt: the packages that are installed, and where to find others."""
    found = subprocess.run(["dpkg-query", "--status", *packages], capture_output=True, check=False)
    settings = subprocess.run(["apt-config", "dump"], capture_output=True, check=True).stdout
    acquire = [line for line in settings.splitlines(True) if line.startswith(b"Acquire::")]
    files = {
        "var/lib/dpkg/status": found.stdout,
        "var/lib/dpkg/info/format": b"1\n",
        "etc/apt/apt.conf.d/90acquire": b"".join(acquire),
    }
    for sources in Path("/etc/apt/sources.list.d").glob("debian.*"):
        files[f"etc/apt/sources.list.d/{sources.name}"] = sources.read_bytes()
    return files


def _files(packages: Iterable[str]) -> list[str]:
    query = ["dpkg-query", "--listfiles", *packages]
    # virtual packages are an error to it
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return [line for line in shown.splitlines() if line.startswith("/")]


def _real(path: str) -> str:
    """A packaged path without its leading slash, past the links into /usr."""
    name = path.strip("/.") if path == "/." else path.lstrip("/")
    first, _, rest = name.partition("/")
    return f"usr/{name}" if first in _MERGED and rest else name


def _libraries(program: Path) -> list[Path]:
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return [Path(found) for found in re.findall(r"(/\S+)(?= \(0x)", shown)]
