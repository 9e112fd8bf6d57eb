"""The parts of a dashboard: rows of panels, and the queries of a panel.

Depends on the names of Grafana's units, panel types and colours, not on its JSON or on any metric.
Invariant: every panel has a description, and none has coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "heatmap", "table"]
Exporter = Literal["service", "vllm", "dcgm"]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and the legend of its series."""

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel.

    `unit` is Grafana's name for the unit. A value has the colour of the highest threshold that it
    reaches, and `base_color` below the first. `columns` are a table's labels by their headings;
    `value_names` are texts for single values, such as 1: "yes".
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None
    thresholds: Sequence[tuple[float, str]] = ()
    base_color: str = "green"
    threshold_lines: bool = False
    log_scale: bool = False  # logarithmic above 1, linear below it, so that zero can be drawn
    exporter: Exporter = "service"
    columns: Mapping[str, str] = field(default_factory=dict)
    value_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable at the top of a dashboard: values of a label, all of them by default.

    "All" also matches series without the label; if the variable is `chained`, it stands for the
    values that the query finds.
    """

    name: str
    label: str
    query: str
    chained: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. `name` is that of its file, and part of its uid; `links` are the names of other
    dashboards."""

    name: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    links: Sequence[str] = ()

    def panels(self) -> Iterator[Panel]:
        """All panels, from top to bottom."""
        for row in self.rows:
            yield from row.panels
