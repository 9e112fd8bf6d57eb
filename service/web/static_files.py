"""Static pages: an HTML page and its files, read once and served with ETags, gzip and a strict
content security policy.

Depends on files and on HTTP caching, not on what a page shows. Invariant: only files that were
named when the page was constructed are served, whatever path a client requests; and a page runs
nothing but its own files and connects to its own origin alone.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from service.errors import NotFound
from service.web.request_target import HAD_TRAILING_SLASH

MAX_FILE_BYTES = 8 * 2**20
MAX_FILES = 64
"""Files of one page."""
_MIN_COMPRESSED_BYTES = 1_024
"""Files below this size are sent as they are."""
_FOREVER = "public, max-age=31536000, immutable"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Scripts, styles and requests of the page's own origin alone; images may also be in memory."""
_SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_TEXT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_BINARY_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
MEDIA_TYPES = _TEXT_TYPES | _BINARY_TYPES
"""The media type of each suffix that a file may have."""


@dataclass(frozen=True, slots=True)
class StaticContent:
    """Bytes that are served as they are: compressed too where they are text, and their digest."""

    body: bytes
    compressed: bytes | None
    media_type: str
    digest: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> StaticContent:
        """The content of these bytes; text of some length is compressed once."""
        compressed = None
        if media_type in _TEXT_TYPES.values() and len(body) >= _MIN_COMPRESSED_BYTES:
            compressed = gzip.compress(body, mtime=0)
        return cls(body, compressed, media_type, hashlib.sha256(body).hexdigest()[:32])

    def response(self, request: Request, *, immutable: bool = False) -> Response:
        """The content as the client accepts it, or 304 where the client has it.

        With `immutable`, its address names this very content, and it may be cached for ever;
        otherwise caches ask again each time.
        """
        is_compressed = self.compressed is not None and _accepts_gzip(request)
        etag = f'"{self.digest}-gzip"' if is_compressed else f'"{self.digest}"'
        headers = {
            "cache-control": _FOREVER if immutable else "no-cache",
            "etag": etag,
            "vary": "accept-encoding",
            **_SECURITY_HEADERS,
        }
        if _has(request, etag):
            return Response(status_code=304, headers=headers)

        body = self.body
        if is_compressed and self.compressed is not None:
            body = self.compressed
            headers["content-encoding"] = "gzip"
        return Response(body, media_type=self.media_type, headers=headers)


class StaticPage:
    """An HTML page at `path`, and its files at `path/NAME`.

    `files` are the files by name; the page refers to them as `NAME-OF-PATH/NAME` in `src` and
    `href`, relative to its own address, so that it also works behind a proxy that adds a prefix.
    Files are read when they are first requested. Raises `FileNotFoundError` for a file that does
    not exist, and `ValueError` for one that is too large or whose type is not known.
    """

    def __init__(self, path: str, page: Path, files: Mapping[str, Path]) -> None:
        if len(files) > MAX_FILES:
            raise ValueError(f"A page may have {MAX_FILES} files.")
        for file in (page, *files.values()):
            _expect_servable(file)

        self.path = path
        self._folder = path.rpartition("/")[2]
        self._page = page
        self._files = dict(files)
        self._contents: dict[str, StaticContent] = {}
        """Files that have been read, by name; the page itself is the empty name."""

    def router(self) -> APIRouter:
        """The routes of the page and of its files, which are no part of the OpenAPI document."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route(self.path, self._answer_page)
        router.add_api_route(f"{self.path}/{{name}}", self._answer_file)
        return router

    async def _answer_page(self, request: Request) -> Response:
        if request.scope.get(HAD_TRAILING_SLASH):
            # with a trailing slash, the page's relative references would lead elsewhere
            return Response(status_code=308, headers={"location": f"../{self._folder}"})

        content = self._contents.get("")
        if content is None:
            content = await self._read_page()
        return content.response(request)

    async def _answer_file(self, request: Request, name: str) -> Response:
        if name not in self._files:
            raise NotFound
        content = await self._read_file(name)
        is_named = request.query_params.get("v") == content.digest
        return content.response(request, immutable=is_named)

    async def _read_file(self, name: str) -> StaticContent:
        if name not in self._contents:
            self._contents[name] = await anyio.to_thread.run_sync(_read, self._files[name])
        return self._contents[name]

    async def _read_page(self) -> StaticContent:
        """Read the page, and add the digest of each file to the references to it."""
        digests = {name: (await self._read_file(name)).digest for name in self._files}

        def versioned(reference: re.Match[str]) -> str:
            digest = digests.get(reference["name"])
            return f"{reference['start']}?v={digest}" if digest else reference["start"]

        text = await anyio.to_thread.run_sync(self._page.read_text, "utf-8")
        pattern = rf'(?P<start>\b(?:src|href)="{re.escape(self._folder)}/(?P<name>[^"?#]+))'
        body = re.sub(pattern, versioned, text).encode()
        self._contents[""] = StaticContent.of(body, MEDIA_TYPES[".html"])
        return self._contents[""]


def _expect_servable(file: Path) -> None:
    if file.suffix not in MEDIA_TYPES:
        raise ValueError(f"There is no media type for {file.name}.")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{file.name} is larger than {MAX_FILE_BYTES} bytes.")


def _read(file: Path) -> StaticContent:
    return StaticContent.of(file.read_bytes(), MEDIA_TYPES[file.suffix])


def _has(request: Request, etag: str) -> bool:
    """True if the client has the content of this ETag (RFC 9110, 13.1.2)."""
    known = request.headers.get("if-none-match", "")
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return etag in tags or tags == ["*"]


def _accepts_gzip(request: Request) -> bool:
    """True if the client accepts gzip (RFC 9110, 12.5.3)."""
    for coding in request.headers.get("accept-encoding", "").split(","):
        name, _, parameter = coding.partition(";")
        if name.strip().lower() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameter)
    return False
