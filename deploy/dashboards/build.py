"""Writes the JSON of the dashboards beside their sources: `python -m deploy.dashboards.build`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from deploy.dashboards import latency, overview, quality, workers
from deploy.dashboards.grafana import as_json
from deploy.dashboards.pages import Dashboard

_PAGES = (overview.DASHBOARD, latency.DASHBOARD, workers.DASHBOARD, quality.DASHBOARD)
FOLDER = Path(__file__).parent


def _with_links(page: Dashboard) -> Dashboard:
    """A dashboard with links to the other ones."""
    return replace(page, links=[linked.name for linked in _PAGES if linked is not page])


DASHBOARDS = tuple(map(_with_links, _PAGES))


def file_of(dashboard: Dashboard) -> Path:
    """The file of a dashboard's JSON."""
    return FOLDER / f"{dashboard.name}.json"


def text_of(dashboard: Dashboard) -> str:
    """The content of that file."""
    return json.dumps(as_json(dashboard), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for dashboard in DASHBOARDS:
        file_of(dashboard).write_text(text_of(dashboard), encoding="utf-8")
