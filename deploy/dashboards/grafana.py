"""Dashboards as the JSON that Grafana imports.

Depends on Grafana's classic schema, not on any metric. Invariant: panels fill their rows from left
to right, and the viewer selects the data source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from string import ascii_uppercase
from typing import Any

from deploy.dashboards.pages import Dashboard, Exporter, Kind, Panel, Query, Row, Variable

SCHEMA_VERSION = 41
COLUMNS = 24
Json = dict[str, Any]

_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
_REQUIREMENTS: Mapping[Exporter, str] = {
    "service": "",
    "vllm": " Requires workers with the vLLM engine.",
    "dcgm": " Requires NVIDIA's DCGM exporter in the same Prometheus.",
}


def as_json(dashboard: Dashboard) -> Json:
    """A dashboard as Grafana imports it."""
    return {
        "uid": _uid(dashboard.name),
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["gmr-rerank"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "annotations": {"list": [_firing_alerts()]},
        "links": [_link(name) for name in dashboard.links],
        "panels": list(_layout(dashboard.rows)),
    }


def _uid(name: str) -> str:
    return f"gmr-rerank-{name}"


def _layout(rows: Sequence[Row]) -> Iterator[Json]:
    """Rows and panels with their ids and grid positions."""
    number, top = 0, 0
    for row in rows:
        number += 1
        position = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": position,
            "panels": [],
        }

        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            number += 1
            position = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield {"id": number, **_panel(panel), "gridPos": position}
            left, height = left + panel.width, max(height, panel.height)

        top += height


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description + _REQUIREMENTS[panel.exporter],
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": list(map(partial(_target, panel), panel.queries, ascii_uppercase)),
        **({"transformations": [_columns(panel.columns)]} if panel.columns else {}),
    }


def _target(panel: Panel, query: Query, letter: str) -> Json:
    instant = panel.kind == "table"
    formats = {"heatmap": "heatmap", "table": "table"}
    return {
        "refId": letter,
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": formats.get(panel.kind, "time_series"),
        "range": not instant,
        "instant": instant,
        "exemplar": query.exemplars,
    }


def _defaults(panel: Panel) -> Json:
    steps = [
        {"color": panel.base_color, "value": None},
        *({"color": color, "value": bound} for bound, color in panel.thresholds),
    ]
    names = {
        value: {"text": text, "index": index}
        for index, (value, text) in enumerate(panel.value_names.items())
    }
    bounds = {"min": panel.minimum, "max": panel.maximum, "decimals": panel.decimals}
    return {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "value", "options": names}] if names else [],
        **{name: value for name, value in bounds.items() if value is not None},
        **({"custom": _style(panel)} if panel.kind == "timeseries" else {}),
    }


def _style(panel: Panel) -> Json:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "scaleDistribution": {"type": "symlog", "log": 10, "linearThreshold": 1}
        if panel.log_scale
        else {"type": "linear"},
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.threshold_lines else "off"},
    }


_OPTIONS: Mapping[Kind, Json] = {
    "timeseries": {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["mean", "max", "lastNotNull"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "steps": 64,
            "scale": "exponential",
            "exponent": 0.5,
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False},
    },
    "table": {
        "showHeader": True,
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": ["sum"], "countRows": False},
    },
}


def _columns(columns: Mapping[str, str]) -> Json:
    """The transformation that shows these labels of a table's series, under their headings."""
    order = {label: index for index, label in enumerate(columns.values())}
    renamed = {label: heading for heading, label in columns.items()}
    return {
        "id": "organize",
        "options": {
            "includeByName": dict.fromkeys(order, True),
            "indexByName": order,
            "renameByName": renamed,
        },
    }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
    }


def _variable(variable: Variable) -> Json:
    all_values = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": variable.query, "refId": f"{variable.name}-values"},
        "definition": variable.query,
        "refresh": 2,  # refreshed with the time range, because pods come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        **({} if variable.chained else {"allValue": ".*"}),
        "current": all_values,
        "hide": 0,
    }


def _firing_alerts() -> Json:
    return {
        "name": "Firing alerts",
        "datasource": _SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Rerank.*", alertstate="firing", namespace=~"$namespace"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
        "step": "60s",
    }


def _link(name: str) -> Json:
    """A link to another dashboard with the same time range, data source and namespace. The job is
    not kept: other dashboards show other jobs."""
    return {
        "type": "link",
        "title": name.capitalize(),
        "url": f"/d/{_uid(name)}?${{datasource:queryparam}}&${{namespace:queryparam}}",
        "icon": "dashboard",
        "tooltip": "",
        "keepTime": True,
        "includeVars": False,
        "asDropdown": False,
        "targetBlank": False,
        "tags": [],
    }
