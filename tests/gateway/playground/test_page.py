"""The playground's page and its files over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_gateway(GatewaySettings(**settings), [])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("samples.json", "application/json"),
        ("icon.svg", "image/svg+xml"),
        ("two-red-circles.png", "image/png"),
    ],
)
async def test_its_files_are_served_and_found_unchanged(name: str, kind: str) -> None:
    async with gateway() as client:
        answer = await client.get(f"/playground/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        known = {"if-none-match": answer.headers["etag"]}
        assert (await client.get(f"/playground/{name}", headers=known)).status_code == 304


async def test_it_runs_its_own_files_alone() -> None:
    async with gateway() as client:
        page = await client.get("/playground")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
        assert {"connect-src 'self'", "base-uri 'none'", "form-action 'none'"} <= set(policy)
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/playground/page.py", "/playground/__init__.py", "/playground/../page.py"]
)
async def test_nothing_else_of_its_folder_is_served(path: str) -> None:
    async with gateway() as client:
        assert (await client.get(path)).status_code == 404


async def test_it_is_not_there_without_pages() -> None:
    async with gateway(pages=False) as client:
        for path in ("/playground", "/playground/app.js"):
            assert (await client.get(path)).status_code == 404
