"""The HTTP behaviour of every route: request ids, flat errors, the limit of a body, work that ends
when its client disconnects, and health."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from service.errors import BY_CODE, Overloaded, RerankError
from service.web.asgi import add_common_routes, until_disconnect
from service.web.request_body import read_body
from tests.web.listening import listening

SECRET = "the text of an exception"
CAP = 1_000
ID = st.text("ABCXYZabcxyz0189._-", min_size=1, max_size=128)


class ExampleApp:
    """An app with a route for each kind of behaviour."""

    def __init__(self) -> None:
        self.ready = self.alive = True
        self.started, self.cancelled = threading.Event(), threading.Event()
        self.app = FastAPI()
        add_common_routes(self.app, is_ready=lambda: self.ready, is_alive=lambda: self.alive)
        for path in ("breaks", "breaks_midway", "greets", "refuses", "teapot"):
            self.app.get(f"/{path}")(getattr(self, path))
        self.app.post("/length")(self.length)
        self.app.post("/wait")(self.wait)

    async def breaks(self) -> Response:
        raise ValueError(SECRET)

    async def breaks_midway(self) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"half an answer"
            raise ValueError(SECRET)

        return StreamingResponse(body())

    async def greets(self) -> Response:
        return PlainTextResponse("well")

    async def refuses(self, code: str) -> Response:
        raise BY_CODE[code]

    async def teapot(self) -> Response:
        raise HTTPException(418, SECRET)

    async def length(self, request: Request) -> Response:
        return PlainTextResponse(str(len(await read_body(request, CAP))))

    async def wait(self, request: Request) -> Response:
        await read_body(request, CAP)
        return await until_disconnect(request, self._work())

    async def _work(self) -> Response:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError


@pytest.fixture
def example() -> ExampleApp:
    return ExampleApp()


def client_of(example: ExampleApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(example.app), base_url="http://example")


def is_flat(response: httpx.Response, error: type[RerankError], message: str | None = None) -> None:
    """The answer is this error's, flat, whole and nothing else."""
    sentence = message or error.message
    identity = response.headers["x-request-id"]
    assert response.status_code == error.status
    assert response.json() == {
        "code": error.code,
        "message": sentence,
        "detail": sentence,
        "request_id": identity,
    }
    assert response.headers["content-type"] == "application/json"
    assert ("retry-after" in response.headers) == error.retry


@settings(max_examples=50, deadline=None)
@given(ID)
async def test_a_good_request_id_is_kept(identity: str) -> None:
    async with client_of(ExampleApp()) as client:
        for path in ("/greets", "/breaks", "/nowhere"):
            assert (await client.get(path, headers={"x-request-id": identity})).headers[
                "x-request-id"
            ] == identity


@pytest.mark.parametrize(
    "identity",
    ["", " ", "a b", "a" * 129, "a/b", "ä".encode(), b"\xff", "a\tb", '"', "<script>", "a,b"],
)
async def test_a_bad_request_id_is_replaced(example: ExampleApp, identity: str | bytes) -> None:
    async with client_of(example) as client:
        given_ = identity if isinstance(identity, bytes) else identity.encode()
        ids = [
            (await client.get("/greets", headers={b"x-request-id": given_})).headers["x-request-id"]
            for _ in range(2)
        ]
    assert all(each.startswith("rr-") and each.encode() != given_ for each in ids)
    assert ids[0] != ids[1]


async def test_each_request_without_an_id_gets_its_own(example: ExampleApp) -> None:
    async with client_of(example) as client:
        answers = await asyncio.gather(*(client.get("/greets") for _ in range(20)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20


@pytest.mark.parametrize("code", BY_CODE)
async def test_every_error_is_the_flat_body(example: ExampleApp, code: str) -> None:
    async with client_of(example) as client:
        is_flat(await client.get("/refuses", params={"code": code}), BY_CODE[code])


async def test_retry_after_is_whole_seconds_and_not_always_the_same(example: ExampleApp) -> None:
    async with client_of(example) as client:
        answers = [
            await client.get("/refuses", params={"code": Overloaded.code}) for _ in range(40)
        ]
    waits = {int(answer.headers["retry-after"]) for answer in answers}
    assert len(waits) > 1
    assert min(waits) >= 1


@pytest.mark.parametrize("path", ["/breaks", "/teapot"])
async def test_an_exception_is_a_flat_500_without_its_text(example: ExampleApp, path: str) -> None:
    async with client_of(example) as client:
        answer = await client.get(path)
    is_flat(answer, BY_CODE["internal"])
    assert SECRET not in answer.text


async def test_an_exception_is_in_the_log_with_its_request_id(
    example: ExampleApp, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(example) as client:
        await client.get("/breaks", headers={"x-request-id": "known"})
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.exc_info
    assert isinstance(record.exc_info[1], ValueError)
    assert record.fields["request_id"] == "known"  # type: ignore[attr-defined]


def test_an_answer_that_breaks_midway_is_cut_off(example: ExampleApp) -> None:
    with listening(example.app) as port, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{port}/breaks_midway")


async def test_unknown_paths_and_methods_are_is_flat(example: ExampleApp) -> None:
    async with client_of(example) as client:
        is_flat(await client.get("/nowhere"), BY_CODE["not_found"])
        wrong = await client.delete("/length")
    is_flat(
        wrong,
        BY_CODE["method_not_allowed"],
        "This path does not take this method. It takes POST.",
    )
    assert wrong.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/length", "POST /length"),
        ("/v1/v1/length", "POST /length"),
        ("/LENGTH", "POST /length"),
        ("/lengths", "POST /length"),
        ("/health/alive", "GET /health/live"),
        ("/completely/else", None),
        ("/" + "a" * 10_000, None),
    ],
)
async def test_an_unknown_path_is_told_the_route_that_was_meant(
    example: ExampleApp, path: str, meant: str | None
) -> None:
    sentence = BY_CODE["not_found"].message
    async with client_of(example) as client:
        for method in ("GET", "POST", "OPTIONS"):
            answer = await client.request(method, path)
            expected = f"{sentence} Did you mean {meant}?" if meant else sentence
            is_flat(answer, BY_CODE["not_found"], expected)


async def test_options_tells_the_methods_of_a_path(example: ExampleApp) -> None:
    async with client_of(example) as client:
        for path, allow in (
            ("/greets", "GET, HEAD, OPTIONS"),
            ("/length", "OPTIONS, POST"),
            ("/health/live/", "GET, HEAD, OPTIONS"),
        ):
            answer = await client.options(path)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["allow"] == allow


async def test_head_is_get_without_its_body(example: ExampleApp) -> None:
    async with client_of(example) as client:
        for path in ("/greets", "/health/live", "/refuses?code=overloaded", "/breaks", "/nowhere"):
            got, asked = await client.get(path), await client.head(path)
            assert (asked.status_code, asked.content) == (got.status_code, b"")
            assert asked.headers["content-type"] == got.headers["content-type"]
        assert int((await client.head("/greets")).headers["content-length"]) == len("well")
        answer = await client.head("/length")
        assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


async def chunks(count: int | None, size: int = 100) -> AsyncIterator[bytes]:
    sent = 0
    while sent != count:
        sent += 1
        yield bytes(size)


@pytest.mark.parametrize("size", [0, 1, CAP - 1, CAP])
async def test_a_body_up_to_the_cap_is_read(example: ExampleApp, size: int) -> None:
    async with client_of(example) as client:
        whole = await client.post("/length", content=bytes(size))
        streamed = await client.post("/length", content=chunks(size, 1))
    assert whole.text == streamed.text == str(size)
    assert "content-length" not in streamed.request.headers


async def test_a_larger_body_is_refused(example: ExampleApp) -> None:
    async with client_of(example) as client:
        is_flat(await client.post("/length", content=bytes(CAP + 1)), BY_CODE["body_too_large"])
        is_flat(await client.post("/length", content=chunks(CAP + 1, 1)), BY_CODE["body_too_large"])


async def test_an_endless_body_is_cut_while_it_streams(example: ExampleApp) -> None:
    async with client_of(example) as client:
        is_flat(await client.post("/length", content=chunks(None)), BY_CODE["body_too_large"])


@pytest.mark.parametrize("announced", ["1001", "9" * 40, "9" * 5_000, "-1", "x"])
async def test_a_body_announced_as_too_large_is_refused_unread(
    example: ExampleApp, announced: str
) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    async with client_of(example) as client:
        answer = await client.post("/length", content=body(), headers={"content-length": announced})
    is_flat(answer, BY_CODE["body_too_large"])
    assert read == 0


def test_over_a_socket_a_larger_body_is_refused_with_and_without_a_length(
    example: ExampleApp,
) -> None:
    with (
        listening(example.app) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        is_flat(client.post("/length", content=bytes(CAP + 1)), BY_CODE["body_too_large"])
        is_flat(client.post("/length", content=iter([bytes(CAP), b"x"])), BY_CODE["body_too_large"])
        assert client.post("/length", content=iter([bytes(CAP - 1), b"x"])).text == str(CAP)


async def test_work_is_cancelled_when_its_client_disconnects(example: ExampleApp) -> None:
    with listening(example.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /wait HTTP/1.1\r\nhost: example\r\ncontent-length: 4\r\n\r\nbody")
        assert await asyncio.to_thread(example.started.wait, 30)
        assert not example.cancelled.is_set()
        writer.close()
        assert await asyncio.to_thread(example.cancelled.wait, 30)
        assert httpx.get(f"http://127.0.0.1:{port}/greets").text == "well"


async def test_health_reports_the_state_of_the_app(example: ExampleApp) -> None:
    async with client_of(example) as client:
        live, ready = "/health/live", "/health/ready"
        assert [(await client.get(path)).json() for path in (live, ready)] == [
            {"status": "live"},
            {"status": "ready"},
        ]
        example.ready = False
        assert (await client.get(live)).status_code == 200
        is_flat(await client.get(ready), BY_CODE["no_worker"], "Not ready.")
        example.alive = False
        is_flat(await client.get(live), BY_CODE["no_worker"], "Not live.")
