"""The entry for mteb's repository, as the page prints it, has the service's scores."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import mteb
import pytest

from model_store.evaluation.tasks.catalogue import instruction_of, read_table
from service.mteb import GmrService
from tests.conftest import TINY
from tests.docs.pages import ROOT, blocks
from tests.mteb.tasks import cell_task
from tests.mteb.test_cross_encoder import QUIET, predictions

PAGE = ROOT / "docs" / "mteb.md"
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The file of the page, as Python imports it."""
    (code,) = [code for _, code in blocks(PAGE) if "lychee_rerank_mm = ModelMeta(" in code]
    file = tmp_path_factory.mktemp("entry") / "gmr_models.py"
    file.write_text(code, encoding="utf-8")
    described = spec_from_file_location("gmr_models", file)
    assert described
    assert described.loader
    module = module_from_spec(described)
    sys.modules["gmr_models"] = module
    described.loader.exec_module(module)
    yield module
    del sys.modules["gmr_models"]


def test_its_scores_are_the_services(entry: ModuleType, server: str, tmp_path: Path) -> None:
    """gmr-tiny with the files that a hub has of such a model."""
    hub = tmp_path / "hub"
    hub.mkdir()
    for name in HUB_FILES:
        shutil.copy(TINY / name, hub)
    model = entry.GmrRerankerWrapper(str(hub), device="cpu", dtype="float32")
    for cell in ("T-T", "T-VD", "IT-IT"):
        found = []
        for name, evaluated in (("own", model), ("service", GmrService(server))):
            task, _ = cell_task(cell)
            folder = tmp_path / cell / name
            mteb.evaluate(evaluated, task, prediction_folder=folder, **QUIET)
            found.append(predictions(folder))
        own, due = found
        assert own.keys() == due.keys()
        for query, scores in own.items():
            assert scores == pytest.approx(due[query], abs=1e-4), cell


def test_its_instructions_are_table_13s(entry: ModuleType) -> None:
    for row in read_table("mrb").tasks:
        for dataset in row.datasets:
            task = mteb.get_task(dataset.task)
            found = entry.GmrRerankerWrapper.get_task_instruction(task.metadata)
            assert found == instruction_of(row), dataset.task


def test_its_training_data_is_mtebs(entry: ModuleType) -> None:
    meta = entry.lychee_rerank_mm
    assert meta.is_cross_encoder
    for name in meta.training_datasets:
        assert mteb.get_task(name).metadata.name == name
    assert json.dumps(meta.to_dict())
