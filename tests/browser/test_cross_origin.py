"""Pages of other origins in a real Chromium: the one that is named calls the service and reads its
errors, another cannot."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.async_api import Browser, Page
from pydantic import SecretStr

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.stand_in import StandIn, good
from tests.web.listening import listening

KEY = "a-key-for-the-page"
CALL = """
async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    const body = await answer.text();
    return {
      status: answer.status, body: body && JSON.parse(body),
      id: answer.headers.get("x-request-id"), retry: answer.headers.get("retry-after"),
    };
  } catch (failure) { return { failure: failure.name }; }
}
"""
QUESTION = '{"query": "q", "documents": ["a", "b"]}'


class _Blank(BaseHTTPRequestHandler):
    """Answers with an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[str, str]]:
    """The origins of two sites."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _Blank) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    named, other = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    yield named, other
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def service(sites: tuple[str, str]) -> Iterator[str]:
    """A gateway that the pages of the first site may call, with a key."""
    settings = GatewaySettings(cors_origins=sites[:1], api_keys=SecretStr(KEY))
    with listening(create_gateway(settings, [StandIn(good).client])) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


def question(key: str | None = KEY) -> dict[str, Any]:
    headers = {"content-type": "application/json", "x-request-id": "from-a-page"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    return {"method": "POST", "headers": headers, "body": QUESTION}


async def test_a_page_of_a_named_origin_gets_scores_and_reads_errors(
    sites: tuple[str, str], service: str, page: Page
) -> None:
    await page.goto(sites[0])
    for path in ("/rerank", "/v1/rerank/"):
        answer = await page.evaluate(CALL, [service + path, question()])
        assert (answer["status"], answer["id"]) == (200, "from-a-page")
        assert [each["index"] for each in answer["body"]["results"]] == [1, 0]

    for path, key, status in (
        ("/rerank", None, 401),
        ("/rerank", "wrong-key-of-some-length", 401),
        ("/rerank", "a", 401),
        ("/info", KEY, 405),
        ("/v1/v1/rerank", KEY, 404),
    ):
        answer = await page.evaluate(CALL, [service + path, question(key)])
        assert (answer["status"], answer["id"]) == (status, "from-a-page")
    assert answer["body"]["message"].endswith("Did you mean POST /v1/rerank?")


async def test_a_page_of_another_origin_is_not_let_in(
    sites: tuple[str, str], service: str, page: Page
) -> None:
    await page.goto(sites[1])
    assert await page.evaluate(CALL, [f"{service}/rerank", question()]) == {"failure": "TypeError"}
