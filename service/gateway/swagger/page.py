"""The page at `/docs`, from Swagger UI's files in an installed package.

Depends on the package's files, not on the OpenAPI document. Invariant: the page needs no key and
holds nothing of a caller; what it shows is the document, which is the same for all.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from service.web.static_files import StaticPage

PATH = "/docs"
_PACKAGE = "fastapi_offline"
"""The package of PyPI that has Swagger UI's files; its code is not imported."""
_SWAGGER_UI_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
_FOLDER = Path(__file__).parent
_OWN_FILES = ("start.js", "page.css", "icon.svg")


def swagger_page() -> StaticPage:
    """The page; raises `ModuleNotFoundError` where the package of Swagger UI is not installed."""
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{_PACKAGE} is not installed.", name=_PACKAGE)

    static = Path(found.submodule_search_locations[0]) / "static"
    files = {name: static / name for name in _SWAGGER_UI_FILES}
    files |= {name: _FOLDER / name for name in _OWN_FILES}
    return StaticPage(PATH, _FOLDER / "index.html", files)
