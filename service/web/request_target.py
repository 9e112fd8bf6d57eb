"""A request's target as routes expect it.

Depends on RFC 9112's forms of a target, not on routes. Clients join base URLs and paths: the
results have slashes at their end, or several in a row; proxies and some clients send a whole URL.
Invariant: a path that is already in order is left as it is.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from starlette.types import Scope

HAD_TRAILING_SLASH = "rerank.had_trailing_slash"
"""The key in a request's scope if its path ended in a slash."""
_ABSOLUTE_FORM = re.compile(rb"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_SLASHES = re.compile("/{2,}")
_RAW_SLASHES = re.compile(rb"/{2,}")


def normalized(scope: Scope, root_path: str = "") -> Scope:
    """A copy of a request's scope whose path starts with a slash, has no two slashes in a row, none
    at its end, and no `root_path`.

    A proxy may send requests under that prefix; others may leave it out. An absolute-form target
    (RFC 9112, 3.2.2) is its path, and its authority replaces the header `Host`.
    """
    scope = {**scope}
    raw_path = scope.get("raw_path") or b""
    absolute = _ABSOLUTE_FORM.match(raw_path)
    if absolute:
        scope["raw_path"] = raw_path[absolute.end() :] or b"/"
        scope["path"] = unquote(scope["raw_path"].decode("ascii"))
        scope["headers"] = [
            (name, absolute["authority"] if name == b"host" else value)
            for name, value in scope["headers"]
        ]

    path = _SLASHES.sub("/", scope["path"])
    scope["raw_path"] = _RAW_SLASHES.sub(b"/", scope.get("raw_path") or b"")
    if len(path) > 1 and path.endswith("/"):
        scope[HAD_TRAILING_SLASH] = True
        path = path[:-1]
        scope["raw_path"] = scope["raw_path"].removesuffix(b"/")
    scope["path"] = path
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        scope["path"] = path[len(root_path) :] or "/"
        scope["raw_path"] = quote(scope["path"]).encode("ascii")
    return scope
