"""Faults: functions that harm a running system and return a function that mends it.

Depends on the system's parts, on no measurement. Invariant: after a fault is undone, the system
becomes ready by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from service.bench.reliability.system import System

SLOWNESS = 10
"""A slowed worker runs one tenth of the time."""
_PERIOD_SECONDS = 0.2
_SWAP_VALUES = (
    "local k=redis.call('KEYS','*') local v={} for i,x in ipairs(k) do v[i]=redis.call('GET',x) end"
    " for i,x in ipairs(k) do redis.call('SET',x,v[i%#k+1]) end return #k"
)
"""Gives every key of Redis the value of another one."""

Undo = Callable[[], None]
Fault = Callable[[System], Undo]


def _no_undo() -> None:
    """Nothing has to be undone."""


def _none(_system: System) -> Undo:
    return _no_undo


def _kill_worker(system: System) -> Undo:
    worker = system.workers[0]
    worker.kill()
    return worker.restart


def _hang_worker(system: System) -> Undo:
    program = system.workers[0].program
    program.pause()
    return program.resume


def _slow_worker(system: System) -> Undo:
    """Pause a worker for most of each period."""
    program = system.workers[0].program
    over = threading.Event()

    def pause_and_resume() -> None:
        while not over.is_set():
            program.pause()
            over.wait(_PERIOD_SECONDS * (1 - 1 / SLOWNESS))
            program.resume()
            time.sleep(_PERIOD_SECONDS / SLOWNESS)

    thread = threading.Thread(target=pause_and_resume)
    thread.start()

    def undo() -> None:
        over.set()
        thread.join()

    return undo


def _kill_redis(system: System) -> Undo:
    system.redis.kill()
    return system.redis.restart


def _hang_redis(system: System) -> Undo:
    program = system.redis.program
    program.pause()
    return program.resume


def _fill_redis(system: System) -> Undo:
    system.redis_command("CONFIG", "SET", "maxmemory", "1mb")

    def undo() -> None:
        system.redis_command("CONFIG", "SET", "maxmemory", "0")

    return undo


def _swap_values_in_redis(system: System) -> Undo:
    system.redis_command("EVAL", _SWAP_VALUES, "0")
    return _no_undo


FAULTS: dict[str, Fault] = {
    "none": _none,
    "a worker is killed": _kill_worker,
    "a worker hangs": _hang_worker,
    f"a worker is {SLOWNESS} times slower": _slow_worker,
    "Redis is killed": _kill_redis,
    "Redis hangs": _hang_redis,
    "Redis is full": _fill_redis,
    "Redis gives other pairs' values": _swap_values_in_redis,
}
