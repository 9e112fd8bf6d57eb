"""Prints a constraints file: what is installed stays as it is, and what is not comes in the version
of the file that is named."""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def canonical(name: str) -> str:
    """A package's name, as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(constraints: str) -> None:
    """Write one `name==version` a line."""
    pins = [
        line
        for line in Path(constraints).read_text(encoding="utf-8").splitlines()
        if "==" in line and line[0] != "#"
    ]
    versions: dict[str, str] = {}
    for each in distributions():
        # the first one on the path is the one that is imported
        versions.setdefault(canonical(each.name), each.version)
    for name, version in (line.split("==") for line in pins):
        versions.setdefault(canonical(name), version)
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(versions.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
