"""`python -m model_store.training CONFIG`: `gmr train CONFIG` as a module, for torchrun."""

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
        # One of several processes: threads of torch may outlive the interpreter where weights were
        # split, and then abort the process (seen once in 26 runs) although all files are written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    sys.exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
