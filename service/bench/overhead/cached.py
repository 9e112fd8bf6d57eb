"""Processor time of requests whose scores are all cached, by service: a gateway before its worker,
and gateway and engine in one process.

Depends on the public API and on the system's account of processor time, which wall time on a busy
machine does not change. Invariant: services get the same request in turns, over connections that
stay open, after each has scored it once.
"""

from __future__ import annotations

import http.client
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from service.bench import calls
from service.bench.programs import Program

_REQUESTS = 100
"""Requests of a service in one round, since the system counts processor time in hundredths of a
second."""
_WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """The program of a service whose processor time is counted, and its address."""

    program: Program
    url: str


def cached_cpu(
    services: Mapping[str, Measured], body: bytes, rounds: int
) -> dict[str, dict[str, Any]]:
    """Milliseconds of processor time of one request by service: the median of `rounds`, and each
    round's mean."""
    means: dict[str, list[float]] = {name: [] for name in services}
    for service in services.values():
        _send(service.url, body, _WARM_UP)

    names = list(services)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            service = services[name]
            before = _cpu_seconds(service)
            _send(service.url, body, _REQUESTS)
            means[name].append((_cpu_seconds(service) - before) / _REQUESTS * 1000)

    return {
        name: {"cpu_ms_a_request": statistics.median(found), "rounds": found}
        for name, found in means.items()
    }


def _cpu_seconds(service: Measured) -> float:
    return sum(service.program.cpu_seconds().values())


def _send(url: str, body: bytes, times: int) -> None:
    """Send a request so many times, over one connection; raises `CallFailed`."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=calls.ANSWER_SECONDS)
    try:
        for _ in range(times):
            connection.request("POST", "/rerank", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != http.client.OK:
                raise calls.CallFailed(
                    f"/rerank answered {answer.status}: {content[:500].decode(errors='replace')}"
                )
    # BrokenPipeError among them, which the command line would take for a closed terminal
    except OSError as error:
        raise calls.CallFailed(f"A service was lost ({type(error).__name__}).") from error
    finally:
        connection.close()
