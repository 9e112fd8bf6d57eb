"""`gmr models inspect --golden`: pairs by transformers alone, which gate a worker's start."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.golden import read_golden
from model_store.manifest import MANIFEST, read_manifest
from model_store.synthetic.cells import CELLS
from service.cli.main import app
from service.worker.engines.torch.engine import TorchEngine
from service.worker.golden_check import check_golden
from tests.chat_rerankers import write_gmr
from tests.erank import write_erank
from tests.layouts import Layout, write_layout
from tests.pair_networks import write_pair_network
from tests.qwen2_vl import write_qwen2_vl
from tests.qwen3 import AuthorsCode, write_qwen3
from tests.qwen3_vl import write_qwen3_vl


def inspect(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["models", "inspect", *map(str, arguments)])


async def drift_of(folder: Path) -> float:
    """The largest drift of the folder's pairs as a worker's start finds it."""
    engine = TorchEngine(device="cpu", threads=1)
    try:
        (info,) = await engine.start(resolve(str(folder)))
        return await check_golden(engine, info, read_golden(folder), 1e-3)
    finally:
        await engine.close()


OTHERS: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "qwen3-vl-reranker-2b": (write_qwen3_vl, "transformers' forward pass", 9),
    "jina-reranker-m0": (partial(write_qwen2_vl, ranking=True), "the head's weights", 9),
    "bert": (partial(write_pair_network, kind="Bert"), "CrossEncoder.predict", 1),
    "chat": (write_gmr, "CrossEncoder.predict", 9),
}
"""Folders of families by their names: the writer, the way of the reference, the kinds of pairs."""


@pytest.mark.parametrize("name", OTHERS)
async def test_every_family_gets_pairs_that_its_engine_reproduces(
    name: str, tmp_path: Path
) -> None:
    write, way, cells = OTHERS[name]
    write(tmp_path / name)
    done = inspect(tmp_path / name, "--golden", cells, "--json")
    assert done.exit_code == 0, done.output
    assert way in done.stderr

    assert len({pair.cell for pair in read_golden(tmp_path / name)}) == cells
    assert json.loads(done.stdout)["golden_pairs"] == cells
    assert await drift_of(tmp_path / name) < 1e-3


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "mine", Layout(sharded=True))


async def test_a_new_folder_has_links_pairs_of_every_cell_and_a_manifest(layout: Path) -> None:
    (layout / "README.md").write_text("its licence", encoding="utf-8")
    (layout / "pytorch_model.bin").write_bytes(b"never opened")
    before = {path.name for path in layout.iterdir()}
    output = layout.with_name("gated")

    done = inspect(layout, "--golden", 11, "--output", output)
    assert done.exit_code == 0, done.output
    assert "by the loop of model cards" in done.stderr

    pairs = read_golden(output)
    assert [pair.cell for pair in pairs] == [*CELLS, *CELLS[:2]]
    assert len({pair.logit for pair in pairs}) == 11
    manifest = read_manifest(output)
    assert manifest
    assert manifest.name == "gated"
    assert manifest.lineage["golden"]["pairs"] == 11
    assert {"README.md", "golden.json"} <= manifest.files.keys()
    assert not (output / "pytorch_model.bin").exists()
    shard = "model-00001-of-00003.safetensors"
    assert (output / shard).samefile(layout / shard)
    assert {path.name for path in layout.iterdir()} == before

    assert await drift_of(output) < 1e-3


async def test_pairs_in_place_by_transformers_forward_pass(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "mine")
    digest = resolve(str(folder)).digest
    done = inspect(folder, "--golden", 4)
    assert done.exit_code == 0, done.output

    authors = AuthorsCode(folder)
    for pair in read_golden(folder):
        (query,), (document,) = pair.query, pair.document
        yes, no = authors.logits(pair.instruction, str(query), str(document))
        assert pair.logit == pytest.approx(yes - no, abs=1e-4)
    assert len(read_golden(folder)) == 4
    assert resolve(str(folder)).digest != digest
    assert await drift_of(folder) < 1e-3

    again = inspect(folder, "--golden", 4)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == ("mine has a manifest.json: a published folder is never changed.\n")


async def test_pairs_of_a_model_that_writes_its_scores(tmp_path: Path) -> None:
    folder = write_erank(tmp_path / "erank-4b-mine")
    done = inspect(folder, "--golden", 3)
    assert done.exit_code == 0, done.output
    assert "the most likely tokens by transformers" in done.stderr

    scores = [pair.logit for pair in read_golden(folder)]
    assert len(scores) == 3
    assert all(0 <= score <= 10 for score in scores)
    assert await drift_of(folder) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--golden", 3), "The model reads 9 kinds of pairs: --golden is at least 9."),
        (("--golden", 9, "--output", "."), ". is there already."),
    ],
)
def test_a_refusal_leaves_the_folder_as_it_was(
    layout: Path, arguments: tuple[object, ...], sentence: str
) -> None:
    before = sorted(layout.rglob("*"))
    done = inspect(layout, *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == sentence
    assert sorted(layout.rglob("*")) == before


def test_a_shipped_model_is_not_written_to() -> None:
    done = inspect("gmr-tiny", "--golden", 9)
    assert (done.exit_code, done.stderr) == (
        1,
        "gmr-tiny is no folder of yours: --golden needs --output.\n",
    )


def test_weights_that_are_missing_are_refused(layout: Path) -> None:
    for shard in layout.glob("*.safetensors"):
        shard.unlink()
    done = inspect(layout, "--golden", 9)
    assert done.exit_code == 1
    assert "is missing, and model.safetensors.index.json names it" in done.stderr
    assert not (layout / MANIFEST).exists()


def test_a_score_that_is_no_number_leaves_no_file(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "mine", Layout())
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    before = sorted(folder.rglob("*"))

    done = inspect(folder, "--golden", 9)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "The score of a golden pair of T-T is nan."
    assert sorted(folder.rglob("*")) == before

    output = tmp_path / "new"
    assert inspect(folder, "--golden", 9, "--output", output).exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_disk_that_refuses_leaves_no_file(layout: Path) -> None:
    (layout / "golden").write_text("a file where the pictures go", encoding="utf-8")
    before = sorted(layout.rglob("*"))
    done = inspect(layout, "--golden", 9)
    assert done.exit_code == 1
    assert sorted(layout.rglob("*")) == before
