"""Targets of requests as clients join them, and the paths that routes see."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from service.web.request_target import HAD_TRAILING_SLASH, normalized


def scope_of(target: str) -> Scope:
    """A request's scope as the server makes it."""
    raw = target.partition("?")[0]
    headers = [(b"host", b"from-header"), (b"x", b"host")]
    return {"path": unquote(raw), "raw_path": raw.encode(), "headers": headers}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/rerank", "/rerank"),
        ("/rerank/", "/rerank"),
        ("/rerank///", "/rerank"),
        ("//rerank", "/rerank"),
        ("//v1//rerank//", "/v1/rerank"),
        ("/", "/"),
        ("///", "/"),
        ("*", "*"),
        ("http://x/rerank", "/rerank"),
        ("HTTPS://x:80//rerank/", "/rerank"),
        ("http://x", "/"),
        ("http://x?q=/rerank", "/"),
        ("http://a%2Fb/rerank", "/rerank"),
        ("/http://x/rerank", "/http:/x/rerank"),
        ("ftp://x/rerank", "ftp:/x/rerank"),
    ],
)
def test_a_target_becomes_the_path_that_was_meant(target: str, path: str) -> None:
    scope = normalized(scope_of(target))
    assert (scope["path"], scope["raw_path"].decode()) == (path, path)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/search/rerank", "/rerank"),
        ("/search//v1/rerank/", "/v1/rerank"),
        ("/search", "/"),
        ("/search/", "/"),
        ("/rerank", "/rerank"),
        ("/searching/rerank", "/searching/rerank"),
        ("/v1/search/rerank", "/v1/search/rerank"),
        ("/search/search/rerank", "/search/rerank"),
        ("/%73earch/rerank", "/rerank"),
        ("http://x/search/rerank", "/rerank"),
    ],
)
def test_a_prefix_of_a_proxy_is_taken_away_once(target: str, path: str) -> None:
    scope = normalized(scope_of(target), "/search")
    assert (scope["path"], scope["raw_path"].decode()) == (path, path)


def test_the_authority_of_a_whole_url_replaces_the_host() -> None:
    assert normalized(scope_of("http://a:1/b"))["headers"] == [(b"host", b"a:1"), (b"x", b"host")]
    assert normalized(scope_of("/b"))["headers"][0] == (b"host", b"from-header")


PATHS = st.text("/ab%2F:.", max_size=30).map(lambda rest: f"/{rest}")


@given(PATHS)
def test_a_path_in_order_stays_as_it_is_and_the_given_scope_is_not_changed(path: str) -> None:
    given_scope = scope_of(path)
    copied = dict(given_scope)
    once = normalized(given_scope)
    assert given_scope == copied
    assert once["path"].startswith("/")
    assert "//" not in once["path"]
    assert once["path"] == "/" or not once["path"].endswith("/")
    assert normalized(once)["path"] == once["path"]
    assert once.get(HAD_TRAILING_SLASH, False) == (
        unquote(path).endswith("/") and unquote(path).strip("/") != ""
    )
