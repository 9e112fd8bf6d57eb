"""A registry on either kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.registry.storage import Storage, open_storage
from tests.model_store.registry.published import fresh_memory


@pytest.fixture(params=["folder", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    local = str(tmp_path / "registry")
    return {"folder": local, "file": f"file://{local}", "memory": fresh_memory()}[request.param]


@pytest.fixture
def storage(root: str) -> Storage:
    return open_storage(root)
