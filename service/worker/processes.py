"""Several workers that share a device: a process and a port each, and the parent of them.

Depends on ports and signals, not on engines. The parent starts a worker once the one before it is
ready, because an engine measures the free memory of its device while it loads. Invariants: the
workers live and end together, so that whatever restarts the parent restarts a whole; a parent that
received a signal ends within the grace period, and leaves no process behind; where the parent is
killed, the workers end by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx

from service.cores import cores
from service.observability.logs import log
from service.worker.settings import ENGINE_PREFIX, WorkerSettings

MEMORY_SHARE = 0.9
"""Share of the device's memory of all workers together, by default. Each of them takes some for its
CUDA context beside it."""
_DIVIDED = ("max_calls_bytes", "picture_store_bytes")
_DIVIDED_BY_ENGINE = ("kv_cache_memory_bytes", "kv_offloading_size", "mm_processor_cache_gb")
"""Bounds of memory, of which each worker gets its part."""
_POLL_SECONDS = 0.5
_PROBE_SECONDS = 10.0
_MISSED_PROBES = 6
"""Probes that a worker may miss, or answer that it is not alive; as many as the chart's probe of a
single worker allows."""
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 128 + signal.SIGINT}
_AFTER_GRACE_SECONDS = 2.0
"""Time after the grace period at which the parent kills the workers that are left."""


def environment_of_worker(
    environment: Mapping[str, str], settings: WorkerSettings
) -> dict[str, str]:
    """The environment of each of several workers: bounds of memory, and threads, in equal parts."""
    count = settings.processes
    own = {"RERANK_PROCESSES": "1", "RERANK_THREADS": str(_threads(settings))}
    for name in _DIVIDED:
        part = -(-getattr(settings, name) // count)
        lowest = 2**20 if name == "max_calls_bytes" else 0
        own[f"RERANK_{name.upper()}"] = str(max(part, lowest))
    if settings.engine == "vllm":
        own |= _engine_parts(settings.engine_arguments, count)
    return dict(environment) | own


def _threads(settings: WorkerSettings) -> int:
    return max(1, (settings.threads or cores()) // settings.processes)


def _engine_parts(arguments: Mapping[str, str], count: int) -> dict[str, str]:
    """The parts of vLLM's arguments; one that is no number is left for vLLM to refuse."""
    shares = {"gpu_memory_utilization": str(MEMORY_SHARE)}
    for name in ("gpu_memory_utilization", *_DIVIDED_BY_ENGINE):
        if name in arguments:
            shares[name] = arguments[name]

    parts: dict[str, str] = {}
    for name, value in shares.items():
        with suppress(ValueError, OverflowError):
            part = float(value) / count
            whole = name == "kv_cache_memory_bytes"
            parts[f"{ENGINE_PREFIX}{name.upper()}"] = str(int(part)) if whole else f"{part:.4g}"
    return parts


def end_without(parent: int) -> None:
    """End this process as SIGTERM does, where its parent `parent` was killed."""
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


class WorkerProcesses:
    """The parent of workers on consecutive ports.

    `arguments` are those of `gmr worker` for all of them, `host` the address that they listen on.
    """

    def __init__(
        self,
        host: str,
        ports: Sequence[int],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        grace_seconds: float,
    ) -> None:
        self._host, self._ports = host, ports
        self._arguments = arguments
        self._environment = environment
        self._grace_seconds = grace_seconds
        self._processes: list[Process] = []

    def run(self) -> int:
        """Run the workers until a signal arrives or one of them ends; returns the exit code."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        received: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
        again = asyncio.Event()

        def receive(number: signal.Signals) -> None:
            if received.done():
                again.set()
            else:
                received.set_result(number)

        for number in _EXIT_CODES:
            asyncio.get_running_loop().add_signal_handler(number, receive, number)
        serving = asyncio.create_task(self._serve())
        either: list[asyncio.Future[Any]] = [received, serving]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

        number = received.result() if received.done() else signal.SIGTERM
        code = _EXIT_CODES[number] if received.done() else serving.result()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await self._end(number, again)
        return code

    async def _serve(self) -> int:
        """Start the workers, and watch them; returns the exit code of the first that fails."""
        watched: set[asyncio.Task[int]] = set()
        try:
            for port in self._ports:
                process = await self._start(port)
                watched.add(asyncio.create_task(self._ended(process, port)))
                ready = asyncio.create_task(self._until_ready(port))
                await asyncio.wait({ready, *watched}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
                if any(each.done() for each in watched):
                    break
                # how long a worker may load is for the probe of the start to say
                watched.add(asyncio.create_task(self._hung(port)))
            else:
                log("all workers are ready", workers=len(self._ports))
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            return max(each.result() for each in done)
        finally:
            for each in watched:
                each.cancel()
            await asyncio.gather(*watched, return_exceptions=True)

    async def _start(self, port: int) -> Process:
        listen = ("--host", self._host, "--port", str(port), "--processes", "1")
        own = (*listen, "--parent", str(os.getpid()))
        command = (sys.executable, "-m", "service.cli", "worker", *own, *self._arguments)
        process = await asyncio.create_subprocess_exec(
            *command, env=self._environment, stdin=DEVNULL
        )
        self._processes.append(process)
        log("a worker is started", port=port, pid_of_worker=process.pid)
        return process

    async def _ended(self, process: Process, port: int) -> int:
        """Wait until a worker has ended by itself, which it should not; returns its exit code, at
        least 1."""
        code = await process.wait()
        log("a worker has ended: all end", logging.ERROR, port=port, exit_code=code)
        return max(1, code)

    async def _hung(self, port: int) -> int:
        """Wait until a worker has not been alive for a while; returns the exit code for that."""
        missed = 0
        while missed < _MISSED_PROBES:
            await asyncio.sleep(_PROBE_SECONDS)
            missed = 0 if await self._answers(port, "/health/live") else missed + 1
        log("a worker is not alive: all end", logging.ERROR, port=port)
        return 1

    async def _until_ready(self, port: int) -> None:
        while not await self._answers(port, "/health/ready"):
            await asyncio.sleep(_POLL_SECONDS)

    async def _answers(self, port: int, path: str) -> bool:
        """True if a worker answers a path with 200."""
        url = f"http://{_reachable(self._host)}:{port}{path}"
        try:
            async with httpx.AsyncClient(timeout=_PROBE_SECONDS, trust_env=False) as client:
                return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def _end(self, number: signal.Signals, again: asyncio.Event) -> None:
        """Pass a signal on, and wait until every worker has ended; kill those that are left after
        the grace period, or at a second signal."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

        ends = asyncio.gather(*[process.wait() for process in self._processes])
        hurried = asyncio.create_task(again.wait())
        either: list[asyncio.Future[Any]] = [ends, hurried]
        await asyncio.wait(
            either,
            timeout=self._grace_seconds + _AFTER_GRACE_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()
        await ends


def _reachable(host: str) -> str:
    """An address at which a worker that listens on `host` is reached from here."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    return f"[{loopback}]" if ":" in loopback else loopback
