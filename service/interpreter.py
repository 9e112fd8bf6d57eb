"""The Python interpreter of a process that serves: its garbage collection and its end.

Depends on the standard library alone. The libraries of an engine are two million objects that live
as long as the process. Looking through them for garbage while they are imported, and once more when
the interpreter is taken apart, takes a third of a start and most of an end. Invariant: a process
that ends here has run what was registered for its exit, and has its exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import os
import sys
from multiprocessing.util import Finalize
from typing import NoReturn

_WHILE_LOADING = (50_000, 20, 100)
"""Thresholds of `gc`: a collection each 50,000 new objects, not each 700."""
_AS_BY_DEFAULT = gc.get_threshold()
_LAST = -100
"""Priority of what runs after everything else that was registered for a process's exit."""


def collect_rarely() -> None:
    """Collect garbage rarely, until `keep_all`: libraries and weights are loaded from here on."""
    gc.set_threshold(*_WHILE_LOADING)


def keep_all() -> None:
    """Exempt what lives from garbage collection, which is as frequent as by default from here on.

    It is what lives as long as the process. A collection takes 0.5 ms less with it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_AS_BY_DEFAULT)


def prepare_spawned() -> None:
    """In a process that `multiprocessing` spawns, such as an engine's: collect garbage rarely, and
    end at once when its work has ended.

    To be called by a module that such a process imports before its work begins; in any other
    process it does nothing. A process whose work failed ends as it would have.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        collect_rarely()
        Finalize(None, _end_spawned, exitpriority=_LAST)


def _end_spawned() -> None:
    """Run what was registered for the process's exit, and end it, unless an exception ends it: its
    traceback and exit code are still to come."""
    failure = sys.exc_info()[1]
    if failure is None or (isinstance(failure, SystemExit) and not failure.code):
        atexit._run_exitfuncs()
        _exit(0)


def end(code: int) -> NoReturn:
    """Run what was registered for the process's exit, and end it."""
    atexit._run_exitfuncs()  # what the interpreter itself calls
    end_now(code)


def end_now(code: int) -> NoReturn:
    """End the process without waiting for anything; its child processes are killed first."""
    for child in multiprocessing.active_children():
        child.kill()
    _exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        # a signal's handler may come here while the stream writes: `RuntimeError`
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            stream.flush()
    os._exit(code)
