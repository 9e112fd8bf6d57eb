"""The base of gmr-tiny-d, with one step of signs: what it begins with, what it changes, and that it
is made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_store.checkpoint import SHIPPED, resolve
from model_store.recipes.tiny.document_first import STAGE, SignSteps, make_base

pytestmark = pytest.mark.slow


def test_the_base_is_gmr_tiny_with_another_language_model_and_is_made_once(tmp_path: Path) -> None:
    folder = make_base(tmp_path, SignSteps(1, seed=7), lambda line: None)
    base, shipped = resolve(str(folder)), resolve("gmr-tiny")
    lineage = base.manifest.lineage
    assert lineage["start"] == {"name": "gmr-tiny", "digest": shipped.digest}
    assert lineage[STAGE].startswith("1 steps of signs on all cells from gmr-tiny")
    assert base.with_template("document-first").family.cacheable_side == "document"

    before, after = (load_file(each / "model.safetensors") for each in (shipped.folder, folder))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.layers.") or name == "model.norm.weight" for name in changed)

    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    make_base(tmp_path, SignSteps(9, seed=8), lambda line: None)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_what_ships_leads_back_to_gmr_tiny() -> None:
    lineage = resolve("gmr-tiny-d").manifest.lineage
    assert lineage["base"]["lineage"]["start"]["name"] == "gmr-tiny"
    assert set(lineage["parity"]) >= {"sentence-transformers", "vllm", "vllm serve"}
    size = sum(path.stat().st_size for path in (SHIPPED / "gmr-tiny-d").rglob("*"))
    assert size <= 25e6
