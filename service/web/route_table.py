"""An app's routes, as a request without a matching one needs them: the methods of a path, and the
path that was probably meant.

Depends on Starlette's routes and on the OpenAPI document. Invariant: a suggestion has a path of the
app's own in it, and nothing of the request.
"""

from __future__ import annotations

import difflib
import re

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import Scope

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
EVERY_METHOD = (*_METHODS, "HEAD", "OPTIONS")
_MAX_PATH = 200
"""Characters of the longest path that a suggestion is made for."""
_SIMILARITY = 0.75


def methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a request's path takes, in alphabetical order; none for an unknown path.

    `HEAD` works wherever `GET` does, and `OPTIONS` wherever there is a route.
    """
    found: list[str] = []
    for method in _METHODS:
        asked = {**scope, "method": method}
        if any(route.matches(asked)[0] is Match.FULL for route in app.routes):
            found.append(method)
    if "GET" in found:
        found.append("HEAD")
    return sorted([*found, "OPTIONS"]) if found else []


def suggested_route(app: FastAPI, path: str) -> str | None:
    """The route that a client probably meant by an unknown path, such as `POST /v1/rerank`; None if
    no route is like it.

    A path that ends in a route's (`/v1/v1/rerank`) means the longest such route.
    """
    if len(path) > _MAX_PATH:
        return None

    described: dict[str, dict[str, object]] = app.openapi()["paths"]
    plain = sorted((known for known in described if "{" not in known), key=len, reverse=True)
    asked = re.sub("/+", "/", path.lower())
    endings = [known for known in plain if asked.endswith(known)]
    similar = endings or difflib.get_close_matches(asked, plain, 1, _SIMILARITY)
    if not similar:
        return None
    method = next(iter(described[similar[0]]))
    return f"{method.upper()} {similar[0]}"
