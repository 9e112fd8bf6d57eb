"""Locks of a run: two processes never append to one journal, nor find the same candidates.

Does not depend on what a run scores. Invariant: the lock of a process that ended, however it ended,
is free.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.shards import Shard


@contextmanager
def shard_lock(run: Path, shard: Shard) -> Iterator[None]:
    """Hold the lock of a shard. Raises `RunUnusable` where another process has it."""
    with _opened(run / f"shard-{shard.index}-of-{shard.count}.lock") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            raise RunUnusable(
                f"{run}: another process scores this part of the run"
                f"{f' (process {owner})' if owner else ''}."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield


@contextmanager
def preparing_lock(run: Path) -> Iterator[None]:
    """Hold the lock under which candidates are found; waits while another process finds them."""
    with _opened(run / "preparing.lock") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)
