"""Runs blocks of Python that a page shows, many at the same time.

Reads a JSON list of runs `{"id", "code", "names", "times"}` from standard input, defines `names`,
runs `code` that many times, and writes a JSON object to the file of the first argument: for each id
the values that were printed, and the exception as its user sees it. It runs in a client's own
environment, so it depends on the standard library alone. Invariant: a run that fails ends no other.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_AT_ONCE = 16


def import_modules(code: str) -> None:
    """Run the imports of a block. Large packages fail where several threads import them first."""
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    with suppress(ImportError):  # the run of the block reports it
        exec(compile(tree, "imports", "exec"), {})


def run(code: str, names: dict[str, Any], times: int) -> dict[str, Any]:
    """Run one block, with a `print` that keeps the values."""
    printed: list[Any] = []
    error = None
    try:
        for _ in range(times):
            scope = {"__name__": "__main__", "print": printed.append} | names
            exec(compile(code, "block", "exec"), scope)
    except Exception as raised:
        error = "".join(traceback.format_exception_only(raised)).strip()
    return {"printed": printed, "error": error}


def main() -> None:
    runs = json.load(sys.stdin)
    for code in {each["code"] for each in runs}:
        import_modules(code)

    with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
        started = {
            each["id"]: threads.submit(run, each["code"], each["names"], each["times"])
            for each in runs
        }
    outcomes = {name: future.result() for name, future in started.items()}
    Path(sys.argv[1]).write_text(json.dumps(outcomes, default=repr), encoding="utf-8")
    os._exit(0)  # some clients keep threads of their own


if __name__ == "__main__":
    main()
