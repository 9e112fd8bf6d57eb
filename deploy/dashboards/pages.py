"""Dashboards as they are thought of: rows of panels, each with its queries.

Knows the names of Grafana's units, panels and colours, not its JSON, and no metric of ours.
Invariant: a panel is explained, and has no coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]
Exporter = Literal["service", "vllm", "dcgm"]


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called."""

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's name of it; `steps` colour values from a bound on, green below
    the first."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    low: float | None = 0
    high: float | None = None
    decimals: int | None = None
    steps: Sequence[tuple[float, str]] = ()
    base: str = "green"
    limit: bool = False  # whether the steps are drawn as lines
    log: bool = False  # above 1; below it is drawn as ever, so that there can be zeros
    needs: Exporter = "service"
    # of a table: labels to show, by their headings
    columns: Mapping[str, str] = field(default_factory=dict)
    # values that have a name, such as 1: "yes"
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label, all of them by default.

    All is anything at all, also where Prometheus gives no such label; where it is `chained`, all
    that the query finds.
    """

    name: str
    label: str
    query: str
    chained: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page. `name` is its file's, and in its uid; `others` are the names of those that it links
    to."""

    name: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    others: Sequence[str] = ()

    def panels(self) -> Iterator[Panel]:
        """All panels, from the top."""
        for row in self.rows:
            yield from row.panels
