"""A Prometheus server for tests: it scrapes its targets every second, evaluates the project's
rules, and answers queries as for Grafana."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import yaml

from deploy.dashboards.grafana import Json
from tests.conftest import free_port
from tests.observability.rules import FILES
from tests.processes import Process, eventually

STEP = 1
"""Seconds between two scrapes, two evaluations of the rules, and two points of an answer."""
_WINDOWS = {"$__rate_interval": "10s", "$__range": "60s"}
_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a graph: its labels, and its points by time."""

    labels: Mapping[str, str]
    points: list[tuple[float, float]]

    @property
    def values(self) -> list[float]:
        """The values, without NaN, which stands for missing data."""
        return [value for _, value in self.points if value == value]

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else math.nan


def as_asked(expr: str, chosen: Mapping[str, str]) -> str:
    """A panel's expression as Grafana sends it, with the values of its variables."""
    for name, value in (_WINDOWS | {f"${name}": value for name, value in chosen.items()}).items():
        expr = expr.replace(name, value)
    return expr


class Prometheus(Process):
    """`prometheus` on a free port, with its data in a folder; `targets` are addresses by job."""

    def __init__(self, folder: Path, targets: Mapping[str, list[str]]) -> None:
        port = free_port()
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(_config(targets)), encoding="utf-8")
        options = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        super().__init__(
            ["prometheus", *options, "--enable-feature=exemplar-storage"], folder / "prometheus.log"
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30)
        self.begun = 0.0

    def start(self) -> None:
        super().start()
        self.begun = time.time()
        eventually(self._answers, why=self.said)

    def end(self) -> int:
        self._client.close()
        return super().end()

    def choose(self, variables: Iterable[Json]) -> dict[str, str]:
        """The values of a dashboard's variables if "All" is selected for each, as Grafana finds
        them."""
        chosen: dict[str, str] = {}
        for variable in variables:
            if variable["type"] == "query":
                found = _VALUES.fullmatch(variable["definition"])
                assert found, variable
                values = self.ask(
                    f"label/{found[2]}/values?{urlencode({'match[]': as_asked(found[1], chosen)})}"
                )
                assert values, f"nothing to choose: {variable['definition']}"
                chosen[variable["name"]] = variable.get("allValue", "|".join(values))
        return chosen

    def graph(self, expr: str, chosen: Mapping[str, str]) -> list[Series]:
        """The series of a panel from the start until now."""
        asked = {
            "query": as_asked(expr, chosen),
            "start": self.begun,
            "end": time.time(),
            "step": STEP,
        }
        return [
            _series(each["metric"], each["values"])
            for each in self.ask("query_range", **asked)["result"]
        ]

    def table(self, expr: str, chosen: Mapping[str, str]) -> list[Series]:
        """The values of a panel now."""
        found = self.ask("query", query=as_asked(expr, chosen))["result"]
        return [_series(each["metric"], [each["value"]]) for each in found]

    def ask(self, what: str, **fields: Any) -> Any:
        """A request to the HTTP API; fails with the error of Prometheus."""
        answer = self._client.post(what, data=fields) if fields else self._client.get(what)
        assert answer.status_code == httpx.codes.OK, f"{fields.get('query')}\n{answer.text}"
        return answer.json()["data"]

    def _answers(self) -> bool:
        assert self.running(), self.said()
        try:
            return self._client.get("status/runtimeinfo").is_success
        except httpx.TransportError:
            return False


def _config(targets: Mapping[str, list[str]]) -> dict[str, Any]:
    """The configuration that the Prometheus operator would write: each address is a pod of its
    job."""
    jobs = [
        {
            "job_name": job,
            "static_configs": [
                {"targets": [address], "labels": {"namespace": "rag", "pod": f"{job}-{number}"}}
                for number, address in enumerate(addresses)
            ],
        }
        for job, addresses in targets.items()
    ]
    often = {
        "scrape_interval": f"{STEP}s",
        "scrape_timeout": f"{STEP}s",
        "evaluation_interval": f"{STEP}s",
    }
    return {"global": often, "rule_files": [str(each) for each in FILES], "scrape_configs": jobs}


def _series(labels: Mapping[str, str], points: list[tuple[float, str]]) -> Series:
    return Series(labels, [(when, float(value)) for when, value in points])
