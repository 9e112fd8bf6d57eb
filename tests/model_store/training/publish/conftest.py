"""A base with few golden pairs, and LoRA adapters for it, as peft writes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import Checkpoint, resolve
from model_store.golden import read_golden, write_golden
from model_store.manifest import digest_files, read_manifest, write_manifest
from model_store.training.publish.card import Story
from model_store.training.publish.job import PublishJob
from tests.conftest import TINY

CELLS = ("T-T", "T-I", "IT-IT")
LANGUAGE = r".*language_model\.layers\..*\.(q_proj|v_proj|down_proj)"
MakeJob = Callable[..., PublishJob]


def write_base(folder: Path) -> Path:
    """gmr-tiny, with three golden pairs."""
    shutil.copytree(
        TINY, folder, ignore=shutil.ignore_patterns("golden*", "MODEL_CARD.md", "manifest.json")
    )
    pairs = {pair.cell: pair for pair in read_golden(TINY)}
    write_golden(folder, [pairs[cell] for cell in CELLS])
    manifest = read_manifest(TINY)
    assert manifest
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    write_manifest(
        folder, manifest.model_copy(update={"name": "base", "files": digest_files(folder, names)})
    )
    return folder


def write_adapter(folder: Path, *, targets: str = LANGUAGE, scale: float = 0.02) -> Path:
    """An adapter of random weights."""
    torch.manual_seed(5)
    network = Network.from_pretrained(TINY, dtype=torch.float32)
    worn = peft.get_peft_model(network, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    for name, parameter in worn.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    worn.save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write_base(tmp_path_factory.mktemp("bases") / "base")))


@pytest.fixture(scope="package")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture
def job(base: Checkpoint, adapter: Path, tmp_path: Path) -> MakeJob:
    """A job with what differs from the usual one."""
    usual = PublishJob(
        base=base, adapter=adapter, output=tmp_path / "out" / "mine", name="mine", story=Story()
    )
    return lambda **changes: replace(usual, **changes)
