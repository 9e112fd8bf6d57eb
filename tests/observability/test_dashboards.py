"""The dashboards' JSON is generated from its sources, and complete."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deploy.dashboards.build import DASHBOARDS, FOLDER, file_of, text_of
from deploy.dashboards.grafana import COLUMNS, Json, as_json
from deploy.dashboards.pages import Dashboard
from tests.observability.render import said

BY_NAME = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)


@BY_NAME
def test_what_ships_is_what_the_source_says(dashboard: Dashboard) -> None:
    assert file_of(dashboard).read_text(encoding="utf-8") == text_of(dashboard), (
        "run: python -m deploy.dashboards.build"
    )


def test_nothing_else_ships() -> None:
    assert sorted(FOLDER.glob("*.json")) == sorted(map(file_of, DASHBOARDS))


@BY_NAME
def test_every_panel_is_explained_and_has_a_place_of_its_own(dashboard: Dashboard) -> None:
    page = as_json(dashboard)
    taken: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or (panel["description"].endswith(".") and panel["targets"])
    titles = [panel.title for panel in dashboard.panels()]
    assert len(titles) == len(set(titles)), "the runbook names panels by their titles"
    assert [panel["id"] for panel in page["panels"]] == list(range(1, len(page["panels"]) + 1))
    assert all(
        upper["gridPos"]["y"] <= lower["gridPos"]["y"] for upper, lower in pairwise(page["panels"])
    )


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.5, "percentunit", "50%"),
        (1930.0, "si:tok/s", "1.93k tok/s"),
        (3 * 2**20, "bytes", "3 MiB"),
        (float("nan"), "s", "-"),
        (2.0, "short", "2"),
    ],
)
def test_values_are_said_in_their_unit(value: float, unit: str, text: str) -> None:
    assert said(value, unit) == text


def _panel(page: Json, title: str) -> Json:
    (panel,) = (panel for panel in page["panels"] if panel["title"] == title)
    return dict(panel)


def test_panels_that_need_more_than_the_service_say_so() -> None:
    (workers,) = (as_json(dashboard) for dashboard in DASHBOARDS if dashboard.name == "workers")
    assert "vLLM engine" in _panel(workers, "KV cache in use")["description"]
    assert "DCGM exporter" in _panel(workers, "Tensor cores busy")["description"]
