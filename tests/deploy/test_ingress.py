"""A path prefix of the Ingress, as the chart renders both sides, through a real nginx."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import free_port
from tests.deploy.chart import Values, container, environment, objects, one
from tests.processes import Gmr, Process, eventually
from tests.promises.limited_gateway import Forgetful, serving

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
GIVEN: Values = {"ingress": {"enabled": True, "hosts": ["rerank.example.com"], "path": "/search/"}}
CONFIG = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port};
    server_name {host};
    location {path} {{ proxy_pass {gateway}; }}
  }}
}}
"""
"""As ingress-nginx makes it of a prefix: the path is passed on as it came."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The service through nginx, and directly."""
    assert NGINX, "nginx is installed by `make packages`"
    folder, port = tmp_path_factory.mktemp("ingress"), free_port()
    found = objects(GIVEN)
    rule = one(found, "Ingress", "rerank")["spec"]["rules"][0]
    told = environment(container(found, "rerank-gateway"))["RERANK_ROOT_PATH"]
    with serving(Forgetful().app) as worker:
        command = ("gateway", "--workers", worker)
        with Gmr(*command, log=folder / "gateway", RERANK_ROOT_PATH=told) as gateway:
            gateway.await_ready()
            (path,) = [each["path"] for each in rule["http"]["paths"]]
            text = CONFIG.format(
                folder=folder, port=port, host=rule["host"], path=path, gateway=gateway.url
            )
            (folder / "nginx.conf").write_text(text)
            nginx = [NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
            with Process(nginx, folder / "log") as proxy:
                outside = f"http://127.0.0.1:{port}"
                eventually(lambda: answers(f"{outside}/search/health/live"), why=proxy.said)
                yield outside, gateway.url


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_the_service_answers_under_the_prefix_and_inside_the_cluster_without_it(
    urls: tuple[str, str],
) -> None:
    outside, inside = urls
    body = {"query": "a", "documents": ["b", "c"]}
    for url in (f"{outside}/search", inside):
        assert len(httpx.post(f"{url}/rerank", json=body).json()["results"]) == 2
        assert httpx.get(f"{url}/nothing").json()["code"] == "not_found"


@pytest.mark.parametrize("page", ["docs", "playground"])
def test_pages_find_what_they_refer_to(urls: tuple[str, str], page: str) -> None:
    outside, _ = urls
    shown = httpx.get(f"{outside}/search/{page}")
    assert shown.status_code == httpx.codes.OK
    references = re.findall(rf'(?:href|src)="({page}/[^"]+)"', shown.text)
    assert references, "relative to the page"
    found = [httpx.get(f"{outside}/search/{each}").status_code for each in references]
    assert found == [httpx.codes.OK] * len(references)
    assert httpx.get(f"{outside}/search/openapi.json").json()["paths"]["/rerank"]
    moved = httpx.get(f"{outside}/search/{page}/", follow_redirects=True)
    assert str(moved.url) == f"{outside}/search/{page}"
