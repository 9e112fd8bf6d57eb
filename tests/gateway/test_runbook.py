"""The runbook's page: it is what its source says, and every link to it leads to a section."""

from __future__ import annotations

import re

import httpx

from deploy.runbook import PAGE, SOURCE, page_of
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.observability.rules import ALERTS

SERVED = {"playground", "docs", "runbook/icon.svg", "runbook/page.css"}


async def test_every_alert_has_its_section_on_the_page_that_gateways_serve() -> None:
    transport = httpx.ASGITransport(app=create_gateway(GatewaySettings(), []))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        text = (await client.get("/runbook")).text
        references = {each.partition("?")[0] for each in re.findall(r'href="([^#"]+)"', text)}
        assert references == SERVED
        for path in SERVED:
            assert (await client.get(f"/{path}")).status_code == 200, path

    anchors = re.findall(r'<h2 id="(\w+)"', text)
    assert sorted(anchors) == sorted(alert.lower() for alert in ALERTS)
    assert set(re.findall(r'href="#(\w+)"', text)) == set(anchors)


async def test_without_pages_it_is_not_there() -> None:
    transport = httpx.ASGITransport(app=create_gateway(GatewaySettings(pages=False), []))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/runbook")).status_code == 404


def test_the_page_is_what_would_be_written_now() -> None:
    """If this fails, run `python -m deploy.runbook`."""
    assert PAGE.read_text(encoding="utf-8") == page_of(SOURCE.read_text(encoding="utf-8"))
