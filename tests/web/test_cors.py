"""Pages of other origins: the answers that a browser lets them read, and the origins that can be
set."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from starlette.responses import Response, StreamingResponse

from service.errors import BY_CODE
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.web.asgi import add_common_routes, new_app
from service.web.cors import CrossOrigin
from service.web.origins import MAX_ORIGINS, BadOrigin, parse_origins

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}
ALLOWED = "access-control-allow-origin"


def client_of(*origins: str) -> httpx.AsyncClient:
    """A client of an app with a route for each error and a streamed answer."""
    app = new_app()
    add_common_routes(app, is_ready=lambda: True, cross_origin=CrossOrigin(origins))

    @app.get("/fails/{code}")
    async def fails(code: str) -> Response:
        raise BY_CODE[code]

    @app.get("/breaks")
    async def breaks() -> Response:
        raise ValueError

    @app.post("/streams")
    async def streams() -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"1\n"
            yield b"2\n"

        return StreamingResponse(lines(), headers={"vary": "accept"})

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


def cors_headers(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


async def test_a_preflight_request_is_answered_before_a_key_is_asked_for() -> None:
    settings = GatewaySettings(cors_origins=(PAGE,), api_keys=SecretStr("a-key-of-some-length"))
    transport = httpx.ASGITransport(create_gateway(settings, []))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as gateway:
        for path in ("/rerank", "/v1/rerank", "/v2/rerank/", "/v1/models"):
            answer = await gateway.options(path, headers={"origin": PAGE} | PREFLIGHT)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers[ALLOWED] == PAGE
            allowed = set(answer.headers["access-control-allow-methods"].split(", "))
            assert ("POST" in allowed) == ("rerank" in path)
            wanted = PREFLIGHT["access-control-request-headers"]
            assert answer.headers["access-control-allow-headers"] == wanted
            assert int(answer.headers["access-control-max-age"]) > 0
            assert answer.headers["x-request-id"]

        refused = await gateway.post("/rerank", headers={"origin": PAGE})
        assert (refused.status_code, refused.headers[ALLOWED]) == (401, PAGE)


async def test_a_preflight_request_for_an_unknown_path_lets_the_page_read_the_404() -> None:
    async with client_of(PAGE) as client:
        asked = await client.options("/stream", headers={"origin": PAGE} | PREFLIGHT)
        assert (asked.status_code, asked.headers[ALLOWED]) == (204, PAGE)
        assert "POST" in asked.headers["access-control-allow-methods"].split(", ")
        assert "allow" not in asked.headers

        other = await client.options("/stream", headers={"origin": OTHER} | PREFLIGHT)
        assert other.status_code == 404


@pytest.mark.parametrize("code", [*BY_CODE, None, "unknown path", "wrong method"])
async def test_a_page_can_read_every_error(code: str | None) -> None:
    async with client_of(PAGE) as client:
        headers = {"origin": PAGE}
        if code == "unknown path":
            answer = await client.get("/nowhere", headers=headers)
        elif code == "wrong method":
            answer = await client.get("/streams", headers=headers)
        else:
            answer = await client.get(f"/fails/{code}" if code else "/breaks", headers=headers)
    assert answer.is_error
    assert answer.headers[ALLOWED] == PAGE
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"x-request-id", "retry-after", "server-timing"} <= set(exposed)


async def test_a_streamed_answer_keeps_what_it_varies_by() -> None:
    async with client_of(PAGE) as client:
        answer = await client.post("/streams", headers={"origin": PAGE})
    assert answer.text == "1\n2\n"
    assert answer.headers[ALLOWED] == PAGE
    assert answer.headers["vary"].lower().split(", ") == ["accept", "origin"]


@pytest.mark.parametrize("origin", [OTHER, "null", PAGE + "/", PAGE + ":8443", PAGE.upper(), ""])
async def test_pages_of_other_origins_are_allowed_nothing(origin: str) -> None:
    async with client_of(PAGE) as client:
        asked = await client.options("/streams", headers={"origin": origin} | PREFLIGHT)
        answer = await client.post("/streams", headers={"origin": origin})
    assert cors_headers(asked) == cors_headers(answer) == set()
    assert asked.headers["allow"] == "OPTIONS, POST"
    # a cache must not give this answer to a page of an allowed origin
    assert "origin" in answer.headers["vary"].lower()


async def test_without_origins_no_answer_has_a_cors_header() -> None:
    async with client_of() as client:
        asked = await client.options("/streams", headers={"origin": PAGE} | PREFLIGHT)
        answer = await client.post("/streams", headers={"origin": PAGE})
    assert cors_headers(asked) == cors_headers(answer) == set()
    assert (asked.status_code, asked.headers["allow"]) == (204, "OPTIONS, POST")
    assert answer.headers["vary"] == "accept"


async def test_every_origin_is_allowed_as_a_star_and_never_with_credentials() -> None:
    async with client_of("*") as client:
        for origin in (PAGE, OTHER, "null"):
            asked = await client.options("/streams", headers={"origin": origin} | PREFLIGHT)
            answer = await client.post("/streams", headers={"origin": origin, "cookie": "a=b"})
            for each in (asked, answer):
                assert each.headers[ALLOWED] == "*"
                assert "access-control-allow-credentials" not in each.headers
        assert cors_headers(await client.post("/streams")) == set()


@pytest.mark.parametrize("requested", ["a\x00b", "x: y", "a," * 4_000 + "a", "a b", ""])
async def test_requested_headers_that_are_no_names_are_not_repeated(requested: str) -> None:
    async with client_of(PAGE) as client:
        headers = {"origin": PAGE} | PREFLIGHT | {"access-control-request-headers": requested}
        answer = await client.options("/streams", headers=headers)
    allowed = answer.headers["access-control-allow-headers"]
    assert allowed == "Authorization, Content-Type, X-Request-Id"


HOST = st.text(string.ascii_letters + string.digits + "-.", min_size=1, max_size=40)


@given(st.sampled_from(["http", "https", "HTTPS", "chrome-extension", "tauri"]), HOST)
def test_an_origin_is_kept_as_a_browser_sends_it(scheme: str, host: str) -> None:
    assert parse_origins([f"{scheme}://{host}"]) == (f"{scheme}://{host}".lower(),)


@given(HOST, st.integers(1, 65_535))
def test_a_port_is_kept_unless_it_is_the_schemes_own(host: str, port: int) -> None:
    sent = f"https://{host}".lower() + ("" if port == 443 else f":{port}")
    assert parse_origins([f"https://{host}:{port}", f"https://{host}:{port}"]) == (sent,)


@given(st.text(max_size=60))
def test_what_is_parsed_is_its_own_parse(text: str) -> None:
    try:
        (origin,) = parse_origins([text])
    except BadOrigin:
        return
    assert parse_origins([origin]) == (origin,)


@pytest.mark.parametrize(
    "entries",
    [
        "app.example.com",
        f"{PAGE}/",
        f"{PAGE}/path",
        "https://*.example.com",
        "https://bücher.example",
        "https://user@example.com",
        "null",
        "https://",
        "https://a:0",
        "https://a:65536",
        "https://a:",
        f"*,{PAGE}",
        "https://" + "a" * 300,
        ",".join(f"https://a{number}" for number in range(MAX_ORIGINS + 1)),
    ],
)
def test_a_setting_that_names_no_origin_is_refused_with_a_sentence(
    entries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_CORS_ORIGINS", entries)
    with pytest.raises(ValidationError, match=r"origin|\*"):
        GatewaySettings()
    monkeypatch.setenv("RERANK_CORS_ORIGINS", f" {PAGE.upper()}:443 , http://localhost:3000,")
    assert GatewaySettings().cors_origins == (PAGE, "http://localhost:3000")
