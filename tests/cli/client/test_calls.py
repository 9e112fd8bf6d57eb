"""Calls to a service: retried within bounds, and one sentence for each failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from service.cli.client.calls import CannotCall, Refused, RetryBounds, Service
from service.cli.client.connection import connect, service_url
from tests.cli.client.answers import answer, scripted
from tests.conftest import free_port

RANKED = answer("200 OK", json.dumps({"results": []}))
BUSY = json.dumps({"code": "overloaded", "message": "The service is at its capacity."})
QUOTA = json.dumps({"code": "rate_limited", "message": "The quota is used up."})
NOT_FOUND = json.dumps({"code": "model_not_found", "message": "No such model: use gmr-tiny."})


def service(url: str, **bounds: float) -> Service:
    return Service(httpx.AsyncClient(base_url=f"{url}/"), RetryBounds(**bounds))


async def refusal(url: str, **bounds: float) -> str:
    with pytest.raises(CannotCall) as refused:
        await service(url, **bounds).rerank({"query": "q", "documents": ["d"]})
    return str(refused.value)


async def test_an_answer_that_may_come_later_is_asked_for_again() -> None:
    later = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    with scripted(
        [
            answer("503 Service Unavailable", BUSY, retry_after="0"),
            answer("429 Too Many Requests", QUOTA, retry_after=later),
            RANKED,
        ]
    ) as server:
        assert await service(server.url).rerank({}) == {"results": []}
    assert server.lines == ["POST /rerank HTTP/1.1"] * 3


async def test_retries_end_with_the_services_sentence() -> None:
    busy = answer("503 Service Unavailable", BUSY, retry_after="0")
    with scripted([busy]) as server:
        assert await refusal(server.url, attempts=3) == "The service is at its capacity."
    assert len(server.lines) == 3


async def test_a_wait_beyond_the_bound_is_not_begun() -> None:
    with scripted([answer("429 Too Many Requests", QUOTA, retry_after="3600")]) as server:
        assert await refusal(server.url) == "The quota is used up."
    assert len(server.lines) == 1


async def test_a_refusal_is_final_and_has_its_code() -> None:
    with scripted([answer("404 Not Found", NOT_FOUND)]) as server, pytest.raises(Refused) as error:
        await service(server.url).rerank({})
    assert (error.value.status, error.value.code) == (404, "model_not_found")
    assert str(error.value) == "No such model: use gmr-tiny."
    assert len(server.lines) == 1


async def test_a_connection_that_breaks_is_opened_again_once_there_was_an_answer() -> None:
    with scripted([RANKED, b"", b"", RANKED]) as server:
        called = service(server.url)
        await called.rerank({})
        assert await called.rerank({}) == {"results": []}
    assert len(server.lines) == 4


async def test_nothing_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert await refusal(url) == f"Nothing answers at {url}."


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (b"", "The connection to URL broke off."),
        (b"SSH-2.0\r\n", "The connection to URL broke off."),
        (answer("404 Not Found", "<h1>nginx</h1>"), "URL answered 404 Not Found: it is no such"),
        (answer("200 OK", "<h1>nginx</h1>"), "URL does not answer as this service does"),
        (answer("200 OK", "[]"), "URL does not answer as this service does"),
        (answer("200 OK", "{}"), "URL does not answer as this service does"),
        (answer("302 Found", "", location="/login"), "URL answered 302 Found: it is no such"),
        (answer("401 Unauthorized", '{"message": "No."}'), "No. Set RERANK_KEY, or give"),
        (answer("400 Bad Request", '{"message": 1}'), "URL answered 400 Bad Request: it is no"),
    ],
    ids=range(9),
)
async def test_another_server_is_recognised(given: bytes, sentence: str) -> None:
    with scripted([given]) as server:
        assert (await refusal(server.url)).startswith(sentence.replace("URL", server.url))


@pytest.mark.parametrize("endpoint", ["", "/", "/rerank", "/v1/rerank", "/v2/rerank/", "/v1"])
def test_the_path_of_an_endpoint_may_follow_the_url(endpoint: str) -> None:
    assert str(service_url(f"http://host:8000{endpoint}")) == "http://host:8000/"
    assert str(service_url(f"https://host/models{endpoint}")) == "https://host/models/"


@given(st.text(max_size=40))
def test_a_wrong_url_ends_the_command_and_never_breaks_it(text: str) -> None:
    code: int | None = None
    try:
        url = service_url(text)
    except typer.Exit as end:
        code = end.exit_code
    assert code == 2 if code is not None else url.scheme in ("http", "https")


async def test_a_key_comes_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RERANK_KEY", "k1")
    assert connect(None, None, connections=1).headers["authorization"] == "Bearer k1"

    file = tmp_path / "key"
    file.write_text("k2\n")
    monkeypatch.setenv("RERANK_KEY_FILE", str(file))
    assert connect(None, None, connections=1).headers["authorization"] == "Bearer k2"

    for content in ("", "two words", "naïve"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(typer.Exit) as end:
            connect(None, file, connections=1)
        assert end.value.exit_code == 1
        said = capsys.readouterr().err
        assert said.strip().endswith(".")
        assert not content or content not in said
