"""Static pages: what is served, how it is cached, and what a page may do."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.web.asgi import add_common_routes, new_app
from service.web.static_files import MAX_FILE_BYTES, StaticPage

HTML = """<!doctype html><title>A page</title>
<link rel="stylesheet" href="room/style.css">
<script src="room/app.js" defer></script>
<a href="room/unknown.css">elsewhere</a> <a href="other/app.js">elsewhere</a>
"""
SCRIPT = "'use strict';\n" * 1_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text(HTML)
    (tmp_path / "style.css").write_text("p { color: red }")
    (tmp_path / "app.js").write_text(SCRIPT)
    (tmp_path / "dot.png").write_bytes(b"\x89PNG" * 1_000)
    (tmp_path / "__init__.py").write_text("secret")
    (tmp_path / "nested").mkdir()
    return tmp_path


def serving(folder: Path, path: str = "/room") -> httpx.AsyncClient:
    app: FastAPI = new_app()
    files = {name: folder / name for name in ("style.css", "app.js", "dot.png")}
    app.include_router(StaticPage(path, folder / "index.html", files).router())
    add_common_routes(app, is_ready=lambda: True)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


async def test_a_page_refers_to_its_files_by_their_content(folder: Path) -> None:
    async with serving(folder) as client:
        page = await client.get("/room")
        references = re.findall(r'(?:href|src)="([^"]+)"', page.text)
        assert [re.sub(r"=[0-9a-f]{32}$", "=DIGEST", each) for each in references] == [
            "room/style.css?v=DIGEST",
            "room/app.js?v=DIGEST",
            "room/unknown.css",
            "other/app.js",
        ]
        assert page.headers["cache-control"] == "no-cache"
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for reference in references[:2]:
            file = await client.get(f"/{reference}")
            assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert file.text == SCRIPT


async def test_a_file_is_kept_for_ever_only_under_the_address_of_its_content(folder: Path) -> None:
    async with serving(folder) as client:
        for query in ("", "?v=", "?v=" + "0" * 32, "?x=1"):
            answer = await client.get(f"/room/app.js{query}")
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


async def test_a_client_that_has_a_file_is_not_sent_it_again(folder: Path) -> None:
    async with serving(folder) as client:
        for path in ("/room", "/room/app.js", "/room/dot.png"):
            for coding in ("gzip", "identity"):
                accepted = {"accept-encoding": coding}
                first = await client.get(path, headers=accepted)
                tag = first.headers["etag"]
                for known in (tag, f'"x", W/{tag}', "*"):
                    again = await client.get(path, headers=accepted | {"if-none-match": known})
                    assert (again.status_code, again.content) == (304, b"")
                    assert again.headers["etag"] == tag
                other = await client.get(path, headers=accepted | {"if-none-match": '"x"'})
                assert other.content == first.content


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.00", False),
        ("br", False),
        ("", False),
    ],
)
async def test_text_is_compressed_for_those_who_accept_it(
    folder: Path, accepted: str, compressed: bool
) -> None:
    async with serving(folder) as client:
        answer = await client.get("/room/app.js", headers={"accept-encoding": accepted})
        assert ("content-encoding" in answer.headers) == compressed
        assert (int(answer.headers["content-length"]) < len(SCRIPT)) == compressed
        assert answer.text == SCRIPT
        assert answer.headers["vary"] == "accept-encoding"

        # a picture is compressed already, and a short text is not worth it
        for path in ("/room/dot.png", "/room/style.css"):
            answer = await client.get(path, headers={"accept-encoding": accepted})
            assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "name",
    ["__init__.py", "index.html", "nested", "../conftest.py", "..%2findex.html", "%2e%2e", "a/b"],
)
async def test_nothing_else_is_served(folder: Path, name: str) -> None:
    async with serving(folder) as client:
        answer = await client.get(f"/room/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_page_may_run_and_call_its_own_origin_alone(folder: Path) -> None:
    async with serving(folder) as client:
        for path in ("/room", "/room/app.js"):
            headers = (await client.get(path)).headers
            policy = dict(
                directive.split(" ", 1)
                for directive in headers["content-security-policy"].split("; ")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert not re.search(r"unsafe|https?:|\*", headers["content-security-policy"])
            assert headers["x-content-type-options"] == "nosniff"


async def test_a_page_with_a_slash_at_its_end_leads_to_the_page(folder: Path) -> None:
    async with serving(folder, "/under/room") as client:
        answer = await client.get("/under/room/")
        assert answer.status_code == 308
        assert answer.url.join(answer.headers["location"]).path == "/under/room"
        assert (await client.get("/under/room/", follow_redirects=True)).text.startswith("<!doc")


async def test_head_is_get_without_a_body(folder: Path) -> None:
    async with serving(folder) as client:
        for path in ("/room", "/room/app.js"):
            got, asked = await client.get(path), await client.head(path)
            assert (asked.status_code, asked.content) == (200, b"")
            for name in ("etag", "content-length", "content-type", "cache-control"):
                assert asked.headers[name] == got.headers[name]


def test_a_page_that_cannot_be_served_is_refused_at_the_start(folder: Path) -> None:
    page = folder / "index.html"
    with pytest.raises(FileNotFoundError):
        StaticPage("/x", page, {"a.js": folder / "missing.js"})
    with pytest.raises(FileNotFoundError):
        StaticPage("/x", folder / "missing.html", {})
    with pytest.raises(ValueError, match="media type"):
        StaticPage("/x", page, {"a": folder / "__init__.py"})
    large = folder / "large.js"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match="larger"):
        StaticPage("/x", page, {"large.js": large})
    many = {f"{number}.js": folder / "app.js" for number in range(65)}
    with pytest.raises(ValueError, match="64 files"):
        StaticPage("/x", page, many)


async def test_what_is_sent_compressed_is_gzip(folder: Path) -> None:
    async with serving(folder) as client:
        request = client.build_request("GET", "/room/app.js", headers={"accept-encoding": "gzip"})
        answer = await client.send(request, stream=True)
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert gzip.decompress(raw).decode() == SCRIPT
