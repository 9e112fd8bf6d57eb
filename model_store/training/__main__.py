"""`python -m model_store.training CONFIG`: what torchrun starts; the same as `gmr train CONFIG`."""

from __future__ import annotations

import os
import sys

import typer

from model_store.commands.train import train


def main() -> None:
    """Run the command and end the process with its code."""
    code: object = 0
    try:
        typer.run(train)
    except SystemExit as end:
        code = end.code
    if "RANK" in os.environ:
        # Of several processes: torch's threads of a group whose weights were split may outlive the
        # interpreter, which then aborts (seen once in 26 runs) although all work is done and
        # written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    sys.exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
