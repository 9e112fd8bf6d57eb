"""Processes of another interpreter: started with a log of their own, and ended as a group.

Depends on processes, not on what they run. Invariant: when the block ends, the process and all that
it started have ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from model_store.training.publish.pairs import PublishRefused

_LAST_CHARS = 2000


@contextmanager
def started(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the length of a block; raises `PublishRefused` where it cannot be run."""
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise PublishRefused(f"{command[0]} cannot be run ({error.strerror}).") from None
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def end_of(log: Path) -> str:
    """The last lines of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARS:].strip()
