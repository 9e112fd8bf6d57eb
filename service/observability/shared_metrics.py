"""The metrics of several processes of one service, added up on the page of any of them.

Depends on prometheus_client's multiprocess mode: each process writes its counters, histograms and
gauges to memory-mapped files, named by the number of the process, in a folder that the parent
process made. A process that replaces another continues its counters. The library gives up two
things: exemplars, and gauges that are computed at the scrape; those are sampled instead. Invariant:
the folder is chosen before the first metric exists, so that none is missing from the files.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable from which prometheus_client reads the folder."""
_PARENT = "parent"
_METRICS = "service.observability.metric_types"
_CPU = "process_cpu_seconds"
_COMBINED: dict[str, Callable[[list[float]], float]] = {
    _CPU: sum,
    "process_resident_memory_bytes": sum,
    "process_open_fds": max,
    "process_max_fds": max,
    "process_start_time_seconds": min,
}
"""Metrics of a process that the page of several has, and their combination."""

_shared: list[SharedMetrics] = []


class SharedMetrics:
    """The files of the metrics of several processes and of their parent, which constructs it.

    `pids` returns the process ids of all of them, the parent's first. Construct it before a metric
    is imported.
    """

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        if _METRICS in sys.modules:
            raise RuntimeError("The metrics of several processes are shared before any exists.")

        self._folder = tempfile.TemporaryDirectory(prefix="gmr-metrics-")
        os.environ[_FOLDER] = self._folder.name
        self._number = _PARENT
        self._pids = pids
        values.ValueClass = values.MultiProcessValue(lambda: self._number)
        _shared.append(self)

    def enter(self, number: int) -> None:
        """Count from now on as the process of a number, in a process that was forked."""
        self._number = str(number)

    def forget(self, number: int) -> None:
        """Drop the gauges of a process that has ended; its counters stay."""
        mark_process_dead(number, self._folder.name)

    def registry(self, own: Sequence[Collector]) -> CollectorRegistry:
        """The metrics of all processes, and those of `own` as this process has them."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder.name)
        registry.register(_GroupCollector(self._pids))
        for collector in own:
            registry.register(collector)
        return registry

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()


class _GroupCollector(Collector):
    """The metrics of the processes themselves: CPU time, memory and open files."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        pids = self._pids()
        found: defaultdict[str, list[float]] = defaultdict(list)
        texts: dict[str, str] = {}
        for pid in pids:
            for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                texts[family.name] = family.documentation
                found[family.name] += [sample.value for sample in family.samples]

        # the system adds the time of a process that ended to its parent's account
        found[_CPU].append(_ended_seconds(pids[0]))
        for name, combine in _COMBINED.items():
            if name in texts:
                kind = CounterMetricFamily if name == _CPU else GaugeMetricFamily
                yield kind(name, texts[name], value=combine(found[name]))


def _ended_seconds(pid: int) -> float:
    """CPU seconds of the children of a process that have ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[13:15]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def shared_metrics() -> SharedMetrics | None:
    """The metrics that this process shares with others; None where it has its own alone."""
    return _shared[0] if _shared else None
