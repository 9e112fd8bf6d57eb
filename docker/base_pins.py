"""Prints a constraints file that keeps installed packages at their versions, and pins the others to
those of a given constraints file."""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def canonical(name: str) -> str:
    """A package's name in the normalised form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(constraints: str) -> None:
    """Print one `name==version` per line."""
    versions: dict[str, str] = {}
    for distribution in distributions():
        # of several versions, the first on the path is the one that is imported
        versions.setdefault(canonical(distribution.name), distribution.version)

    for line in Path(constraints).read_text(encoding="utf-8").splitlines():
        if "==" in line and not line.startswith("#"):
            name, version = line.split("==")
            versions.setdefault(canonical(name), version)
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(versions.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
