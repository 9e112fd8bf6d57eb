"""A command of `gmr`, run by a recipe as a person would type it.

Depends on the environment's own `gmr`, not on a recipe. Invariant: no setting from the environment
reaches a command, so that its arguments alone decide what it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def run_gmr(report: Callable[[str], None], *arguments: object) -> str:
    """The standard output of a `gmr` command, which is reported before it runs.

    Its standard error is the caller's. Raises `CalledProcessError` where the command fails.
    """
    typed = [str(argument) for argument in arguments]
    report(f"gmr {' '.join(typed)}")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RERANK_")}
    program = str(Path(sys.executable).with_name("gmr"))
    done = subprocess.run(
        [program, *typed], env=clean, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
