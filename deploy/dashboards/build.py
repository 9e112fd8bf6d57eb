"""Write the dashboards' JSON beside their sources: `python -m deploy.dashboards.build`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from deploy.dashboards import latency, overview, quality, workers
from deploy.dashboards.grafana import as_json
from deploy.dashboards.pages import Dashboard

_PAGES = (overview.DASHBOARD, latency.DASHBOARD, workers.DASHBOARD, quality.DASHBOARD)
DASHBOARDS = tuple(
    replace(page, others=[other.name for other in _PAGES if other is not page]) for page in _PAGES
)
FOLDER = Path(__file__).parent


def file_of(dashboard: Dashboard) -> Path:
    """Where a dashboard's JSON is kept."""
    return FOLDER / f"{dashboard.name}.json"


def text_of(dashboard: Dashboard) -> str:
    """What that file says."""
    return json.dumps(as_json(dashboard), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        file_of(each).write_text(text_of(each), encoding="utf-8")
