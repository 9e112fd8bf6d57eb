"""A request with a valid key enters as the key's caller, any other is refused, on every route."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from msgspec import structs
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from service.errors import Unauthorized
from service.gateway.admission.authentication import Authenticator, Caller, caller_of
from service.gateway.admission.keys import KeysUnusable, digest, new_key
from service.gateway.admission.quotas import Quota
from service.gateway.app import create_gateway
from service.gateway.probes import LIVE_PATHS, READY_PATHS
from service.gateway.settings import GatewaySettings
from service.wire import ScoreCall
from tests.gateway.stand_in import INFO, StandIn, reply, scored
from tests.metrics import metric_value

KEY, OTHER, PLAIN = new_key(), new_key(), new_key()
ADAPTER = structs.replace(INFO, model="adapter", digest="sha256:adapter")
NOBODY = 65_534
OPEN = {
    "/": "/",
    "/health/live": "/health/live",
    "/health/ready": "/health/ready",
    "/openapi.json": "/openapi.json",
    "/docs": "/docs",
    "/docs/{name}": "/docs/start.js",
    "/playground": "/playground",
    "/playground/{name}": "/playground/app.js",
    "/runbook": "/runbook",
    "/runbook/{name}": "/runbook/page.css",
    **{path: path for path in (*READY_PATHS, *LIVE_PATHS)},
}
"""Routes that hold nothing of a caller, each with an address: probes, and the pages that a key is
typed into."""


def entry(key: str, **fields: Any) -> dict[str, Any]:
    return {"sha256": digest(key.encode()).hex()} | fields


def keys_file(folder: Path, *entries: dict[str, Any]) -> Path:
    """The file with new content, replaced as `gmr keys` and Kubernetes do it."""
    new = folder / "new.json"
    new.write_text(json.dumps({"keys": entries}), encoding="utf-8")
    return new.replace(folder / "keys.json")


def bearing(key: str | bytes | None) -> dict[str, bytes]:
    return (
        {}
        if key is None
        else {"authorization": b"Bearer " + (key if isinstance(key, bytes) else key.encode())}
    )


@pytest.mark.parametrize(
    ("scope", "name"),
    [("tenant:shop", "shop"), ("key:ci", "ci"), (f"sha256:{digest(b'k').hex()}", None), ("", None)],
)
def test_a_caller_is_called_what_the_operator_calls_it_and_never_by_its_key(
    scope: str, name: str | None
) -> None:
    assert Caller(scope).name() == name


async def entered(authenticator: Authenticator, *headers: tuple[bytes, bytes]) -> Any:
    request = Request({"type": "http", "headers": list(headers)})
    await authenticator.authenticate(request)
    return caller_of(request)


def header(value: bytes) -> tuple[bytes, bytes]:
    return b"authorization", value


@asynccontextmanager
async def gateway(*infos: Any, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    """A gateway over one worker; and a client that follows no redirect and adds no header."""
    worker = StandIn(answer, *infos or (INFO,))
    app = create_gateway(GatewaySettings(**settings), [worker.client])
    transport = httpx.ASGITransport(app=app)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        async with asyncio.timeout(10):
            while (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield client, app


async def answer(call: ScoreCall) -> Response:
    return reply(
        [scored(1.0)] * len(call.documents), (INFO if call.model == INFO.model else ADAPTER).digest
    )


def refused(answer: httpx.Response) -> bool:
    known = answer.json()
    return (answer.status_code, known["code"], answer.headers["www-authenticate"]) == (
        401,
        "unauthorized",
        "Bearer",
    )


@pytest.mark.parametrize(
    "value",
    [b"Bearer %s", b"bearer %s", b"BEARER %s", b"Bearer   %s", b"Bearer %s  "],
)
async def test_a_key_is_known_however_its_scheme_is_written(tmp_path: Path, value: bytes) -> None:
    authenticator = Authenticator(file=keys_file(tmp_path, entry(KEY, tenant="t")))
    assert (
        await entered(authenticator, (b"host", b"x"), header(value % KEY.encode()))
    ).scope == "tenant:t"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [KEY.encode()],
        [b"Basic " + KEY.encode()],
        [b"Bearer\t" + KEY.encode()],
        [b"Bearer" + KEY.encode()],
        [b"Bearer " + KEY[:-1].encode()],
        [b"Bearer " + KEY.encode() + b"="],
        [b"Bearer " + KEY.upper().encode()],
        [b"Bearer " + KEY.encode() + b" x"],
        [b"Bearer " + digest(KEY.encode()).hex().encode()],
        [b"Bearer " + digest(KEY.encode())],
        [b"Bearer \xff\xfe\x00"],
        ["Bearer ключ".encode()],
        [b"Bearer " + b"a" * 60_000],
        [b"Bearer " + KEY.encode(), b"Bearer " + KEY.encode()],
        [b"Bearer x", b"Bearer " + KEY.encode()],
    ],
    ids=range(19),
)
async def test_anything_else_is_refused(tmp_path: Path, headers: Sequence[bytes]) -> None:
    authenticator = Authenticator(file=keys_file(tmp_path, entry(KEY)))
    with pytest.raises(Unauthorized):
        await entered(authenticator, *map(header, headers))


async def test_a_caller_is_who_its_key_says(tmp_path: Path) -> None:
    third = new_key()
    file = keys_file(
        tmp_path,
        entry(KEY, tenant="t", pairs_per_second=5, models=["a"]),
        entry(OTHER, tenant="t", max_in_flight=2),
        entry(third, name="n"),
    )
    authenticator = Authenticator(plain=PLAIN, file=file)
    callers = [
        await entered(authenticator, header(b"Bearer " + key.encode()))
        for key in (KEY, OTHER, third, PLAIN)
    ]

    assert [caller.scope for caller in callers[:3]] == ["tenant:t", "tenant:t", "key:n"]
    assert callers[3].scope.startswith("sha256:")
    assert callers[0].quota == callers[1].quota == Quota(5, 2)
    assert callers[2].quota == Quota()
    assert [caller.may_use("b") for caller in callers] == [False, True, True, True]


async def test_without_keys_everyone_is_the_same_caller() -> None:
    assert (
        (await entered(Authenticator())).scope
        == (await entered(Authenticator(), header(b"Bearer x"))).scope
        == ""
    )


async def test_an_empty_file_lets_nobody_in_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = Authenticator(file=keys_file(tmp_path))
    watching = asyncio.create_task(authenticator.monitor())
    await asyncio.sleep(0)
    watching.cancel()

    assert "there are no keys: nobody may enter" in caplog.messages
    with pytest.raises(Unauthorized):
        await entered(authenticator, header(b"Bearer " + KEY.encode()))


def test_a_file_that_is_broken_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeysUnusable):
        Authenticator(file=tmp_path / "absent.json")
    with pytest.raises(KeysUnusable):
        create_gateway(GatewaySettings(api_keys=SecretStr("")), [])


async def test_keys_change_without_a_restart_and_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator = Authenticator(file=keys_file(tmp_path, entry(KEY)))

    async def lets_in(key: str) -> bool:
        await authenticator.reload()
        try:
            await entered(authenticator, header(b"Bearer " + key.encode()))
        except Unauthorized:
            return False
        return True

    assert await lets_in(KEY)
    keys_file(tmp_path, entry(KEY), entry(OTHER))
    assert await lets_in(OTHER)
    keys_file(tmp_path, entry(OTHER))
    assert not await lets_in(KEY)
    for harm in (lambda: (tmp_path / "keys.json").write_text("{"), (tmp_path / "keys.json").unlink):
        caplog.clear()
        harm()
        for _ in range(3):
            assert await lets_in(OTHER)

        assert metric_value("rerank_file_readable", file="api_keys") == 0
        assert len(caplog.records) == 1, "once, not at every look"
    keys_file(tmp_path, entry(KEY))

    assert await lets_in(KEY)
    assert metric_value("rerank_file_readable", file="api_keys") == 1


async def test_a_swap_of_links_as_kubernetes_makes_is_noticed(tmp_path: Path) -> None:
    for name, key in (("one", KEY), ("two", OTHER)):
        (tmp_path / name).mkdir()
        keys_file(tmp_path / name, entry(key))
    same = (tmp_path / "one/keys.json").stat()
    os.utime(tmp_path / "two/keys.json", ns=(same.st_atime_ns, same.st_mtime_ns))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    authenticator = Authenticator(file=tmp_path / "keys.json")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "..data")
    await authenticator.reload()

    assert await entered(authenticator, header(b"Bearer " + OTHER.encode()))
    with pytest.raises(Unauthorized):
        await entered(authenticator, header(b"Bearer " + KEY.encode()))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read, with this process as a user without privileges: modes do
    not apply to root."""
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        if was == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(was)
            folder.chmod(0o755)


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_file_that_can_be_read_again_is_read_again(
    open_folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A revoked key went on working: nothing about the file's time or size changes when its mode
    does."""
    folder = open_folder / "keys"
    folder.mkdir()
    file = keys_file(folder, entry(KEY))
    authenticator = Authenticator(file=file)
    keys_file(folder, entry(OTHER))
    shut = file if what == "file" else folder
    shut.chmod(0)
    for _ in range(3):
        await authenticator.reload()
    assert metric_value("rerank_file_readable", file="api_keys") == 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await entered(authenticator, header(b"Bearer " + KEY.encode()))
    shut.chmod(0o755)
    await authenticator.reload()
    assert metric_value("rerank_file_readable", file="api_keys") == 1
    await entered(authenticator, header(b"Bearer " + OTHER.encode()))

    with pytest.raises(Unauthorized):
        await entered(authenticator, header(b"Bearer " + KEY.encode()))


async def test_a_file_that_is_as_it_was_again_is_known_to_be_readable(open_folder: Path) -> None:
    file = keys_file(open_folder, entry(KEY))
    authenticator = Authenticator(file=file)
    for mode, readable in ((0, 0), (0o644, 1)):
        file.chmod(mode)
        await authenticator.reload()
        assert metric_value("rerank_file_readable", file="api_keys") == readable


async def test_another_content_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    file = keys_file(tmp_path, entry(KEY))
    authenticator = Authenticator(file=file)
    before = file.stat()
    file.write_text(json.dumps({"keys": [entry(OTHER)]}), encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    await authenticator.reload()

    with pytest.raises(Unauthorized):
        await entered(authenticator, header(b"Bearer " + KEY.encode()))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], "This needs an API key: send the header Authorization: Bearer KEY."),
        ([b"Bearer wrong-key"], "This API key is not valid."),
        ([b"Bearer " + b"x" * 999], "This API key is not valid."),
        ([b"Bearer "], "This API key is not valid."),
        ([b"Basic abc"], "The Authorization header is not of the form: Bearer KEY."),
        ([KEY.encode()], "The Authorization header is not of the form: Bearer KEY."),
        ([b"Bearer a", b"Bearer b"], "There is more than one Authorization header: send one."),
    ],
)
async def test_a_refusal_says_what_is_wrong_with_the_key(
    tmp_path: Path, headers: Sequence[bytes], said: str
) -> None:
    authenticator = Authenticator(file=keys_file(tmp_path, entry(KEY)))
    with pytest.raises(Unauthorized) as refusal:
        await entered(authenticator, *map(header, headers))
    assert refusal.value.sentence() == said


async def test_every_other_route_asks_for_a_key() -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, app):
        walked = 0
        for path, method in routes(app):
            if path in OPEN and method == "GET":
                answer = await client.get(OPEN[path], follow_redirects=True)
                assert answer.status_code == 200, path
                continue
            walked += 1
            answer = await client.request(method, path)

            assert refused(answer), path
            assert refused(await client.request(method, path, headers=bearing(KEY))), path
            assert (
                await client.request(method, path, headers=bearing(PLAIN))
            ).status_code != 401, path
        assert walked >= 7


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """All (path, method) of the app's routes, independent of the OpenAPI document."""
    found: list[tuple[str, str]] = []
    left: list[Any] = list(app.routes)
    while left:
        route = left.pop()
        if inner := getattr(route, "original_router", None):
            left += inner.routes
        elif isinstance(route, APIRoute):
            found += [(route.path, method) for method in route.methods]
        else:
            raise AssertionError(f"a route of an unknown kind: {route!r}")
    return found


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key", "api-key", "x-goog-api-key"])
async def test_a_key_in_another_vendors_header_is_told_where_it_belongs(name: str) -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        answer = await client.get("/info", headers={name: PLAIN})
        assert refused(answer)
        assert answer.json()["message"] == (
            f"The header {name.lower()} is not read: send the API key as Authorization: Bearer KEY."
        )

        both = {name: PLAIN} | bearing(KEY)
        assert (await client.get("/info", headers=both)).json()["message"] == (
            "This API key is not valid."
        )


async def test_without_pages_the_description_asks_for_a_key() -> None:
    async with gateway(api_keys=SecretStr(PLAIN), pages=False) as (client, _):
        for path in ("/", "/docs", "/docs/start.js", "/playground", "/playground/app.js"):
            # vendors' clients may post to the root
            assert (await client.get(path, headers=bearing(PLAIN))).status_code in (404, 405)
        assert refused(await client.get("/openapi.json"))
        assert (await client.get("/openapi.json", headers=bearing(PLAIN))).status_code == 200


async def test_the_address_without_a_path_leads_to_a_page() -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, "playground")
        assert "<title>Playground" in (await client.get("/", follow_redirects=True)).text


async def test_without_keys_nothing_asks_for_one() -> None:
    async with gateway() as (client, app):
        assert len(routes(app)) >= 10
        for path, method in routes(app):
            assert (await client.request(method, path)).status_code not in (401, 403)


async def test_metrics_may_be_public() -> None:
    async with gateway(api_keys=SecretStr(PLAIN), metrics_public=True) as (client, _):
        assert (await client.get("/metrics")).status_code == 200
        assert refused(await client.get("/info"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/rerank/"),
        ("GET", "/health/other"),
        ("GET", "/INFO"),
        ("HEAD", "/rerank"),
        ("TRACE", "/rerank"),
        ("GET", "/rerank"),
        ("POST", "/health/live"),
    ],
)
async def test_no_other_path_or_method_tells_anything(method: str, path: str) -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        url = httpx.URL("http://gateway").copy_with(raw_path=path.encode())
        answer = await client.request(method, url, json={"query": "q", "documents": ["a"]})
        assert answer.status_code in (404, 405)
        assert method == "HEAD" or answer.json()["code"] in ("not_found", "method_not_allowed")


async def test_slashes_and_head_change_nothing_about_keys() -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        for path in ("/info/", "//info//", "/v1//models/", "/v1/models/m/", "/metrics/"):
            url = httpx.URL("http://gateway").copy_with(raw_path=path.encode())
            assert refused(await client.get(url)), path
            assert (await client.head(url)).status_code == 401, path
            assert (await client.get(url, headers=bearing(PLAIN))).status_code == 200, path
            assert (await client.head(url, headers=bearing(PLAIN))).status_code == 200, path


async def test_options_reveals_the_methods_of_a_path_and_nothing_else() -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        for path, methods in (("/rerank", "OPTIONS, POST"), ("/info", "GET, HEAD, OPTIONS")):
            answer = await client.options(path)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["allow"] == methods


async def test_a_key_is_asked_for_before_the_body_is_read() -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("somebody read the body")
        yield b""

    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        assert refused(await client.post("/rerank", content=body()))


async def test_a_key_uses_and_sees_its_models_only(tmp_path: Path) -> None:
    file = keys_file(
        tmp_path,
        entry(KEY, models=["adapter", "gone"]),
        entry(OTHER, models=["gone"]),
        entry(PLAIN),
    )
    async with gateway(INFO, ADAPTER, api_keys_file=file) as (client, _):

        async def asked(key: str, **fields: Any) -> tuple[int, str]:
            answer = await client.post(
                "/rerank", json={"query": "q", "documents": ["a"]} | fields, headers=bearing(key)
            )
            return answer.status_code, answer.json().get("code", answer.json().get("model"))

        assert await asked(PLAIN) == (200, "m")
        assert await asked(KEY, model="adapter") == (200, "adapter")
        assert await asked(KEY) == (403, "forbidden")
        assert await asked(KEY, model="m") == (403, "forbidden")
        assert await asked(KEY, model="unknown") == (403, "forbidden")
        assert await asked(KEY, model="gone") == (404, "model_not_found")
        for key, names in ((PLAIN, ["adapter", "m"]), (KEY, ["adapter"]), (OTHER, [])):
            answer = await client.get("/v1/models", headers=bearing(key))
            assert [model["id"] for model in answer.json()["data"]] == names
        for key, name, status in (
            (PLAIN, "m", 200),
            (PLAIN, "unknown", 404),
            (KEY, "adapter", 200),
            (KEY, "m", 403),
            (KEY, "unknown", 403),
        ):
            assert (
                await client.get(f"/v1/models/{name}", headers=bearing(key))
            ).status_code == status, (name, status)
        refusal = await client.get("/v1/models/m", headers=bearing(KEY))
        assert (
            refusal.json()["message"]
            == "This API key may not use this model. You may use: adapter."
        )
        infos = [await client.get("/info", headers=bearing(key)) for key in (PLAIN, KEY, OTHER)]

        assert [each.json().get("model", each.status_code) for each in infos] == [
            "m",
            "adapter",
            403,
        ]


async def test_tenants_share_scores_only_if_told_to(tmp_path: Path) -> None:
    file = keys_file(
        tmp_path, entry(KEY, tenant="a"), entry(OTHER, tenant="a"), entry(PLAIN, tenant="b")
    )
    for shared in (False, True):
        async with gateway(api_keys_file=file, cache_shared=shared) as (client, _):
            cached = []
            for key in (KEY, OTHER, PLAIN):
                answer = await client.post(
                    "/rerank", json={"query": "q", "documents": ["x"]}, headers=bearing(key)
                )
                cached.append(answer.json()["meta"]["cached_pairs"])
            assert cached == [0, 1, int(shared)]


async def test_the_description_says_that_a_key_is_needed() -> None:
    async with gateway(api_keys=SecretStr(PLAIN)) as (client, _):
        page = (await client.get("/openapi.json")).json()
        assert page["security"] == [{"key": []}]
        assert page["paths"]["/health/live"]["get"]["security"] == []
    async with gateway() as (client, _):
        assert "security" not in (await client.get("/openapi.json")).json()
