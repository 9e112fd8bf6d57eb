"""Qwen3-VL-Reranker is measured on rows as transformers scores them, and not trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.checkpoint import Checkpoint, resolve
from model_store.evaluation.metrics import ndcg
from model_store.manifest import write_manifest
from model_store.training.benchmark import Rows, measure, ranked_relevances
from model_store.training.config import TrainConfig, TrainingError
from model_store.training.data.rows import Side, read_examples
from model_store.training.sources import open_sources
from tests.model_store.training.colours import write_colours
from tests.qwen3_vl import AuthorsCode, write_qwen3_vl
from tests.qwen3_vl import Side as Parts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("models") / "qwen3-vl-reranker-small"
    # the authors' code reads the rows' files at the sizes that the folder states
    bounds = {"size": {"shortest_edge": 4096, "longest_edge": 1_310_720}}
    write_qwen3_vl(folder, seed=5, processor=bounds)
    write_manifest(folder, resolve(str(folder)).manifest)
    return resolve(str(folder))


def parts_of(side: Side) -> Parts:
    parts: list[str | Image.Image] = []
    if side.image is not None:
        parts.append(Image.open(side.image).convert("RGB"))
    if side.text is not None:
        parts.append(side.text)
    return parts


def test_rows_rank_as_the_authors_code_scores_their_pairs(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = write_colours(tmp_path, rows=20, asks="red, and not")
    measured = measure(checkpoint, Rows(path, checkpoint))
    authors = AuthorsCode(checkpoint.folder)

    gains = []
    for example in read_examples(path):
        documents = [*example.positives, *(negative.side for negative in example.negatives)]
        instruction = example.instruction or checkpoint.manifest.default_instruction
        query = parts_of(example.query)
        scores = [authors.logit(query, parts_of(side), instruction) for side in documents]
        ranked = ranked_relevances(scores, len(example.positives))
        gains.append(ndcg(ranked, 10))
    assert list(measured.values["ndcg@10"].values()) == pytest.approx(gains)
    assert np.unique(gains).size > 1


def test_it_is_refused_as_a_base_before_training(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(
        {
            "model": str(checkpoint.folder),
            "output": tmp_path / "run",
            "data": {"train": write_colours(tmp_path), "negatives": 3},
            "batch": {"examples": 2, "tokens": 20_480},
        }
    )
    with pytest.raises(TrainingError, match="of the family qwen3-vl-reranker are served, not"):
        open_sources(config, 1)
