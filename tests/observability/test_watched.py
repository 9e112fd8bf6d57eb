"""A real Prometheus that scrapes the service under load has data for every panel, and evaluates
every rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deploy.dashboards.build import DASHBOARDS, file_of
from deploy.dashboards.grafana import as_json
from deploy.dashboards.pages import Dashboard
from tests.observability.expressions import selectors
from tests.observability.prometheus import Prometheus
from tests.observability.render import draw, legend_of
from tests.observability.rules import ALERTS, RECORDED
from tests.observability.scene import scene

pytestmark = pytest.mark.slow
BY_NAME = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the service for a minute."""
    with scene(tmp_path_factory.mktemp("scene")) as prometheus:
        yield prometheus


def test_the_load_was_one_that_moves_the_needles(watched: Prometheus) -> None:
    """Otherwise panels could show only zeros without a failing test."""
    highest = {
        metric: max(
            value
            for series in watched.graph(f"sum by (job) ({metric})", {})
            for value in series.values
        )
        for metric in (
            "rerank_shed_total",
            'rerank_cache_lookups_total{result="hit"}',
            'rerank_pairs_total{result="refused"}',
            "rerank_truncated_pairs_total",
            "rerank_images_total",
            "rerank_cache_failures_total",
            'rerank_workers{state="unready"}',
            'rerank_scoring_duration_seconds_count{modality="mixed"}',
        )
    }
    assert all(highest.values()), highest


@BY_NAME
def test_every_panel_shows_something_of_a_service_under_load(
    dashboard: Dashboard, watched: Prometheus
) -> None:
    chosen = watched.choose(as_json(dashboard)["templating"]["list"])
    empty = []
    for panel in dashboard.panels():
        for query in panel.queries:
            ask = watched.table if panel.kind == "table" else watched.graph
            # one that nothing here can answer must at least be PromQL
            found = ask(query.expr, chosen)
            if panel.exporter == "service" and not any(series.values for series in found):
                empty.append(f"{panel.title}: {query.expr}")
    assert not empty


@BY_NAME
def test_every_legend_names_labels_that_its_query_has(
    dashboard: Dashboard, watched: Prometheus
) -> None:
    chosen = watched.choose(as_json(dashboard)["templating"]["list"])
    for panel in as_json(dashboard)["panels"]:
        for target in panel.get("targets", ()):
            names = [legend_of(target, series) for series in watched.graph(target["expr"], chosen)]
            assert "" not in names, panel["title"]
            assert len(names) == len(set(names)), (
                f"{panel['title']}: several series are called {names}"
            )


def test_a_dashboard_can_be_drawn(watched: Prometheus, tmp_path: Path) -> None:
    draw(
        json.loads(file_of(DASHBOARDS[0]).read_text(encoding="utf-8")),
        watched,
        tmp_path / "drawn.png",
    )
    picture = Image.open(tmp_path / "drawn.png")
    assert picture.width > 1_000
    assert len(picture.getcolors() or ()) > 50, "there are lines, not only frames"


def test_prometheus_runs_every_rule(watched: Prometheus) -> None:
    ran = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in ran} == {*ALERTS, *RECORDED}
    assert {rule["name"]: rule["lastError"] for rule in ran if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("recorded", RECORDED)
def test_what_is_recorded_has_values_of_a_service_under_load(
    recorded: str, watched: Prometheus
) -> None:
    assert any(series.values for series in watched.graph(recorded, {}))


@pytest.mark.parametrize("alert", ALERTS)
def test_what_an_alert_watches_is_there_to_be_watched(alert: str, watched: Prometheus) -> None:
    for selector in selectors(ALERTS[alert]["expr"]):
        assert watched.graph(selector.text, {}), selector.text


def test_a_new_service_that_sheds_and_fails_does_not_page_by_its_budget_yet(
    watched: Prometheus,
) -> None:
    """Its error rate is that of an outage, of which there are data for a minute or two."""
    (ratio,) = watched.graph("job:rerank_requests_failed:ratio_rate1h", {})
    assert max(ratio.values) > 14.4 * 0.001
    firing = {
        series.labels["alertname"] for series in watched.graph('ALERTS{alertstate="firing"}', {})
    }
    assert not {name for name in firing if "Budget" in name or "Absent" in name}
