"""Locks of a run: two processes never append to one journal, nor find the same candidates.

Does not depend on what a run scores. Invariant: the lock of a process that ended, however it ended,
is free.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.shards import Shard

_PREPARING = "preparing.lock"
_POLL_SECONDS = 0.2


@contextmanager
def shard_lock(run: Path, shard: Shard) -> Iterator[None]:
    """Hold the lock of a shard. Raises `RunUnusable` where another process has it."""
    with _opened(run / f"shard-{shard.index}-of-{shard.count}.lock") as handle:
        if not _taken(handle):
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            raise RunUnusable(
                f"{run}: another process scores this part of the run"
                f"{f' (process {owner})' if owner else ''}."
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield


@asynccontextmanager
async def preparing_lock(run: Path, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock under which candidates are found.

    Waits while another process finds them, after a call of `waiting`; the wait can be cancelled.
    """
    with _opened(run / _PREPARING) as handle:
        if not _taken(handle):
            waiting()
            while not _taken(handle):
                await asyncio.sleep(_POLL_SECONDS)
        yield


@contextmanager
def replacing_lock(run: Path) -> Iterator[None]:
    """Hold the same lock while the identity of a run is replaced. Raises `RunUnusable` where
    another process finds candidates."""
    with _opened(run / _PREPARING) as handle:
        if not _taken(handle):
            raise RunUnusable(
                f"{run}: another process finds the candidates of another run in it; give another"
                " folder."
            )
        yield


def _taken(handle: int) -> bool:
    """True once this process has the lock of a file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)
