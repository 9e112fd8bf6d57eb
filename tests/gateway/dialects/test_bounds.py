"""Quotas and the bounds of bodies hold in every dialect."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.gateway.admission.keys import digest
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.dialects.forms import FORMS, Form
from tests.gateway.stand_in import StandIn, good

PAIRS = 20
MOST = 30
RATE = 0.5
_WAIT = re.compile(r"more in (\d+) s\.")


async def asked(path: Path, form: Form, *bodies: dict[str, Any]) -> list[httpx.Response]:
    """The answers to some bodies, one after another, of a gateway with a quota."""
    file = path / "keys.json"
    key = {"sha256": digest(b"a").hex(), "tenant": "t", "pairs_per_second": RATE}
    file.write_text(json.dumps({"keys": [key]}), encoding="utf-8")

    settings = GatewaySettings(api_keys_file=file, max_documents=MOST, max_json_delimiters=1_000)
    app = create_gateway(settings, [StandIn(good).client])
    transport = httpx.ASGITransport(app=app)
    headers = {"authorization": "Bearer a", **form.headers}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        async with asyncio.timeout(10):
            while (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        return [await client.post(form.path, json=body, headers=headers) for body in bodies]


@pytest.mark.parametrize("name", FORMS)
async def test_a_request_is_charged_with_its_pairs(name: str, tmp_path: Path) -> None:
    form = FORMS[name]
    body = form.body("q", [f"text {number}" for number in range(PAIRS)])
    served, refused = await asked(tmp_path, form, body, body)

    assert served.is_success, served.text
    assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
    wait = _WAIT.search(refused.json()["message"])
    assert wait is not None
    assert (PAIRS - 4) / RATE < int(wait[1]) <= (PAIRS - 1) / RATE


@pytest.mark.parametrize("name", FORMS)
async def test_a_request_has_at_most_so_many_documents(name: str, tmp_path: Path) -> None:
    """A refused request is not charged."""
    form = FORMS[name]
    too_many = form.body("q", [f"text {number}" for number in range(MOST + 1)])
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    bodies = [too_many, form.body("q", []), form.body("q", [deep]), form.body("q", ["a"])]
    *refused, served = await asked(tmp_path, form, *bodies)

    assert [answer.status_code for answer in refused] == [400] * 3, refused[-1].text
    assert served.is_success, served.text
