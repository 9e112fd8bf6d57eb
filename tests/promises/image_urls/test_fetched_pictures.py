"""An image at a URL is treated as its bytes: scored, cached and refused as if they had been
sent."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from service.errors import BadRequest
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.media.decoders import Decoders
from service.gateway.media.fetching import Fetcher
from service.gateway.media.reader import Media
from service.gateway.media.urls import FetchRules
from service.gateway.rerank import Reranker
from service.items import Item
from service.limits import Limits
from tests.gateway.encoded_pictures import (
    REFUSED,
    bare,
    encode,
    jpeg_of_scans,
    picture,
    png_that_claims,
)
from tests.gateway.stand_in import StandIn, good, monitored, reranker, soon
from tests.processes import Gmr
from tests.promises.image_urls.hostile import HOST, PUBLIC, Dialler, Hostile, Resolver, hostile, ok

PNG = encode(picture())
RULES = FetchRules(
    hosts=(), seconds=30, at_once=8, max_urls=8, max_image_bytes=2**20, max_request_bytes=2**22
)


def url(path: str) -> Item:
    return Item(image=f"https://{HOST}/{path}")


@dataclass
class House:
    """A reranker that fetches, its only worker, and the server it fetches from."""

    reranker: Reranker
    worker: StandIn
    server: Hostile
    resolver: Resolver

    async def rerank(self, *documents: Item, **fields: Any) -> RerankResult:
        asked: dict[str, Any] = {"query": Item(text="q"), "documents": documents} | fields
        return await self.reranker.rerank(RerankQuery(**asked), soon())


@pytest.fixture
async def house() -> AsyncIterator[House]:
    authority, worker, resolver = trustme.CA(), StandIn(good), Resolver([PUBLIC])
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    async with hostile(ok(PNG), authority) as server, monitored(worker.client) as workers:
        fetcher = Fetcher(
            RULES, resolve=resolver, backend=Dialler(server.port), ssl_context=trusted
        )
        yield House(
            reranker(workers, Media(Limits(), Decoders(), fetcher)), worker, server, resolver
        )


async def test_it_is_known_by_its_bytes_and_never_by_its_url(house: House) -> None:
    await house.rerank(Item(image=bare(PNG)))
    assert [each.cached for each in (await house.rerank(url("a.png"))).ranked] == [True]
    assert [each.cached for each in (await house.rerank(url("b.png"))).ranked] == [True]
    house.server.answer = ok(encode(picture((80, 60))))
    assert [each.cached for each in (await house.rerank(url("a.png"))).ranked] == [False]
    assert [len(call.documents) for call in house.worker.calls] == [1, 1]


async def test_each_url_is_asked_once_wherever_it_stands(house: House) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": f"https://{HOST}/{path}"}} for path in "aba"
    ]
    outcome = await house.rerank(
        url("a"), url("a"), Item.validated({"content": content}), query=url("b")
    )
    assert len(outcome.ranked) == 3
    assert sorted(head.split()[1] for head in house.server.heads) == [b"/a", b"/b"]


async def test_who_names_no_url_has_nothing_looked_up(house: House) -> None:
    await house.rerank(
        Item(text="1"), Item(image=bare(PNG)), Item(text="https://example.com/a.png")
    )
    assert house.resolver.asked == []
    assert house.server.heads == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_image"),
        (b"<html></html>", "invalid_image"),
        (PNG[: len(PNG) // 2], "invalid_image"),
        (REFUSED["gif"], "invalid_image"),
        (REFUSED["svg"], "invalid_image"),
        (jpeg_of_scans(64, 1000), "invalid_image"),
        (encode(picture((1, 1))), "invalid_image"),
        (png_that_claims(60_000, 60_000), "image_too_large"),
        (bytes(RULES.max_image_bytes + 1), "image_too_large"),
    ],
    ids=range(9),
)
async def test_bytes_that_would_be_refused_are_refused(
    house: House, data: bytes, code: str
) -> None:
    house.server.answer = ok(data, "Content-Type: image/png")
    documents = Item(text="1"), url("a"), Item(text="2")
    with pytest.raises(BadRequest) as caught:
        await house.rerank(*documents)
    assert (caught.value.code, caught.value.problems[0].loc) == (code, ("documents", 1, "image"))
    skipped = await house.rerank(*documents, skip_errors=True)
    assert [(index, error.code) for index, error in skipped.errors] == [(1, code)]
    assert [each.index for each in skipped.ranked] == [2, 0]


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    """A service that fetches; all that it is asked for here is refused before anything is looked
    up."""
    settings = {
        "RERANK_IMAGE_URLS": "true",
        "RERANK_IMAGE_URL_HOSTS": ".example.com",
        "RERANK_THREADS": "1",
    }
    with Gmr(
        "serve", log=tmp_path_factory.mktemp("fetching") / "log", RERANK_DEVICE="cpu", **settings
    ) as gateway:
        yield gateway.await_ready()


@pytest.mark.slow
@pytest.mark.parametrize(
    "refused",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::ffff:169.254.169.254]/",
        "https://localhost/",
        "https://user@img.example.com/",
        "https://img.example.com:8000/",
        "https://img.example.com\\@127.0.0.1/",
        "https://example.com/",
        "https://evil.example/",
        "http://img.example.com/",
    ],
)
def test_the_service_says_in_its_own_words_what_it_does_not_fetch(
    fetching: Gmr, refused: str
) -> None:
    answer = fetching.rerank(query="q", documents=["good", {"image": refused}])
    body = answer.json()
    assert (answer.status_code, body["code"]) == (httpx.codes.BAD_REQUEST, "invalid_image")
    assert body["errors"] == [{"loc": ["documents", 1, "image"], "message": body["message"]}]
    assert "127.0.0.1" not in answer.text
    assert "evil" not in answer.text
    skipped = fetching.rerank(
        query="q", documents=["good", {"image": refused}], on_error="skip"
    ).json()
    assert [each["index"] for each in skipped["results"]] == [0]


@pytest.mark.slow
def test_a_list_of_hosts_that_are_none_does_not_start(tmp_path: Path) -> None:
    with Gmr("serve", log=tmp_path / "log", RERANK_IMAGE_URL_HOSTS="10.0.0.1") as gateway:
        assert gateway.wait() != 0
        assert "An image host is a name" in gateway.said()
