"""Ray's actors together write what one process writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from model_store.training.data.corpus import Corpus
from model_store.training.negatives.choosing import Rules
from model_store.training.negatives.cluster import mine_on_cluster
from model_store.training.negatives.mining import EXAMPLES_A_PART, Miner, Run
from model_store.training.negatives.opening import Choice, open_retriever
from tests.model_store.embedders import write_sentence_model
from tests.model_store.training.rows import write_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of two workers on this machine, gone after the test."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level="warning",
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


def test_a_cluster_gives_what_one_process_gives(tmp_path: Path, one_core: None) -> None:
    model = write_sentence_model(tmp_path / "model", dimensions=16)
    corpus = write_rows(
        tmp_path / "corpus.jsonl",
        [{"id": f"{n}", "text": f"number {n} of a list"} for n in range(200)],
    )
    rows = [
        {"query": f"which is {n}?", "positives": [f"number {n % 200} of a list"]}
        for n in range(EXAMPLES_A_PART + 40)
    ]
    run = Run(
        write_rows(tmp_path / "train.jsonl", rows),
        corpus,
        tmp_path / "here.jsonl",
        Rules(hard=2, random=2, top=20),
    )
    there = replace(run, target=tmp_path / "there.jsonl")
    parts: list[int] = []
    mine_on_cluster(
        there, Choice("dense", str(model), device="cpu"), actors=2, progress=parts.append
    )
    assert sum(parts) == 2
    for one in (run, there):
        opened = Corpus(corpus)
        miner = Miner(
            one, opened, open_retriever(Choice("dense", str(model), device="cpu"), opened)
        )
        if one is run:
            miner.mine(range(miner.parts))
        miner.finish()
    assert there.target.read_bytes() == run.target.read_bytes()
    assert there.report.read_bytes() == run.report.read_bytes()
