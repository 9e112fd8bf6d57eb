"""The pages agree with a running service: its metrics, routes and log, and the tools in its
image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.observability import exposition  # noqa: F401 - its import registers each metric
from service.observability.metric_types import LABELS
from tests.conftest import free_port
from tests.deploy.chart import objects
from tests.docs.pages import CONFIGURATION, PAGES, ROOT, commands, inline, lines, name_of
from tests.observability.rules import RECORDED
from tests.processes import Fleet, Gmr, eventually, fleet

pytestmark = pytest.mark.slow

NOTES = ROOT / "deploy" / "helm" / "templates" / "NOTES.txt"
RUNBOOK = ROOT / "docs" / "runbook.md"
_METRIC = re.compile(r"(?<![\w:/])((?:job:|pod:)?rerank[_:][a-z0-9_:]+)(?:\{([^}\n]*)\})?")
_ROUTE = re.compile(r"(GET |POST |PUT |DELETE )?(/[a-z0-9_/.-]+)")
_EXEC = re.compile(
    r"(?:kubectl|docker compose|docker|podman)[^`\n]* exec (?:-\S+ )*(\S+) (?:-- )?([^`\n]+)"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A gateway and its worker that have answered a request."""
    with fleet(tmp_path_factory.mktemp("pages"), 1) as running:
        assert running.gateway.rerank(query="q", documents=["d"]).status_code == 200
        yield running


def exposed(fleet: Fleet) -> set[str]:
    """The names of all exposed metrics, including the parts of histograms."""
    found: set[str] = set()
    for process in (fleet.gateway, *fleet.workers):
        for name, kind in re.findall(
            r"^# TYPE (\S+) (\w+)$", process.client.get("/metrics").text, re.MULTILINE
        ):
            found |= {
                name,
                *(f"{name}_{part}" for part in ("bucket", "sum", "count") if kind == "histogram"),
            }
    return found


def test_metrics_that_are_named_are_exposed(pair: Fleet) -> None:
    modules = {path.stem for path in (ROOT / "service").rglob("rerank_*.py")}
    known = exposed(pair) | set(RECORDED) | modules
    unknown = set()
    for file in (*PAGES, *CONFIGURATION):
        for name, labels in _METRIC.findall(file.read_text(encoding="utf-8")):
            if name not in known:
                unknown.add(f"{name_of(file)}: {name}")
            for label, value in (
                re.findall(r'(\w+)=\\?"(\w+)\\?"', labels) if name in LABELS else ()
            ):
                values = LABELS[name].get(label, (value,))
                assert not values or value in values, f"{name_of(file)}: {name}{{{label}={value}}}"
    assert unknown == set()


def test_routes_that_are_named_are_there(pair: Fleet) -> None:
    named = set()
    for page in PAGES:
        for code in inline(page):
            route = _ROUTE.fullmatch(code)
            if route and (
                route[1]
                or re.match(r"/(health|v\d|rerank|score|info|metrics|docs|openapi)", route[2])
            ):
                named.add(route[2])
        for command in commands(page):
            if command.words[0] == "curl":
                urls = [word for word in command.words if re.match(r"(https?://|\$GATEWAY)", word)]
                named |= {re.sub(r"^(https?://[^/]+|\$GATEWAY)", "", url) for url in urls}
    assert {"/rerank", "/health/live", "/health/ready", "/info", "/metrics"} <= named
    for path in sorted(named):
        assert any(
            each.client.get(path).status_code != 404 for each in (pair.gateway, *pair.workers)
        ), path


def test_what_is_searched_for_in_the_log_is_what_the_log_looks_like(tmp_path: Path) -> None:
    """Every `| grep ...` of the pages keeps the intended lines of a real log, and drops the
    others."""
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}', encoding="utf-8")
    nowhere = f"http://127.0.0.1:{free_port()}"
    with Gmr(
        "gateway", "--workers", nowhere, log=tmp_path / "log", RERANK_API_KEYS_FILE=str(keys)
    ) as gateway:
        eventually(lambda: "nobody may enter" in gateway.said(), why=gateway.said)
    searches = [
        line.partition("| ")[2] for page in PAGES for line in lines(page) if "| grep" in line
    ]
    assert searches
    log = gateway.said()
    matters = [line for line in log.splitlines() if json.loads(line)["level"] != "info"]
    assert 0 < len(matters) < len(log.splitlines())
    for search in searches:
        command = re.sub(r"\s#\s.*", "", search)
        kept = subprocess.run(
            ["bash", "-c", command], input=log, capture_output=True, text=True, check=False
        ).stdout
        assert kept.splitlines() == matters, command


def tools(dockerfile: Path) -> set[str]:
    """The commands of an image: the files that it copies beside its Python."""
    text = dockerfile.read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from).* /opt/gmr/bin/(\w+)$", text, re.MULTILINE)
    assert "apt-get" not in text, "then its packages are tools, too"
    return {"gmr", "python", *copied}


def executed() -> list[tuple[str, str, list[str]]]:
    """(page, container, words) of each command that the pages run inside a container."""
    return [
        (name_of(page), where, command.split())
        for page in (*PAGES, NOTES)
        for where, command in _EXEC.findall(page.read_text(encoding="utf-8"))
    ]


def test_what_is_run_in_a_container_is_in_its_image() -> None:
    assert executed()
    for page, where, words in executed():
        (image,) = {name for name in ("gateway", "worker", "trainer") if name in where}
        assert words[0] in tools(ROOT / "docker" / f"{image}.Dockerfile"), (
            f"{page}: {image} has no {words[0]}"
        )


def test_the_runbooks_look_at_a_worker_tells_one_that_answers_from_one_that_does_not(
    pair: Fleet,
) -> None:
    (words,) = [
        words for page, _, words in executed() if page == name_of(RUNBOOK) and words[0] == "healthy"
    ]
    assert words == ["healthy", "8001", "/health/live", "WORKER"]
    port = pair.workers[0].url.rpartition(":")[2]

    def look(port: str) -> tuple[int, str]:
        typed = [
            sys.executable,
            "-IS",
            str(ROOT / "docker" / "healthy.py"),
            port,
            "/health/live",
            "127.0.0.1",
        ]
        done = subprocess.run(typed, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr.strip()

    assert look(port) == (0, "")
    code, said = look(str(free_port()))
    assert (code, "/health/live: " in said) == (1, True)


def test_what_kubectl_is_asked_for_is_in_the_release() -> None:
    release = objects()
    names = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in release}
    labels = {
        f"{key}={value}" for each in release for key, value in each["metadata"]["labels"].items()
    }
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"kubectl [^`\n]+", text):
            assert set(re.findall(r"\b(?:deployment|service)/rerank[\w-]*", line)) <= names, line
            assert set(re.findall(r"app\.kubernetes\.io/\w+=\w+", line)) <= labels, line
