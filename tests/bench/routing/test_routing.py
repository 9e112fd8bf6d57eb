"""The measurement of splitting and affinity, on a small extent, with real workers and gateways."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from model_store.families.tokens import LiteralTokenizer
from service.bench.routing.report import SplitRow
from service.bench.routing.requests import Extent, RequestMaker
from service.bench.routing.run import AGREEMENT, run_routing
from tests.bench.plans import torch_plan
from tests.conftest import TINY


@pytest.mark.slow
def test_a_run_prints_two_tables_and_writes_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "routing.json"
    plan = torch_plan(output, samples=2, documents=4)
    extent = Extent({"short": 0, "middle": 2}, stream_queries=2, pages=2, page_documents=2)
    assert run_routing(plan, extent) == 0
    printed = capsys.readouterr().out
    assert "split over 2 workers" in printed
    assert "void" not in printed
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["disagreement"] <= AGREEMENT
    assert "torch" in report["versions"]["engine"]
    splits = [(row["query"], row["documents"]) for row in report["split"]]
    assert splits == list(product(("short", "middle"), (2, 4)))
    streams = [(row["query"], row["callers"]) for row in report["streams"]]
    assert streams == list(product("TQ", (1, 4)))
    for row in report["split"]:
        assert min(row["whole"], row["split"], row["gain"]) > 0
        assert row["prefix_tokens"] > 10
        assert row["share_per_prefix"] == pytest.approx(
            row["suffix_tokens"] / 2 / row["prefix_tokens"]
        )
    for row in report["streams"]:
        assert min(row["affinity"], row["least_loaded"], row["gain"]) > 0
        assert 0 <= row["affinity_reused"] <= 1


def test_recurring_documents_come_under_new_queries() -> None:
    maker = RequestMaker(LiteralTokenizer.load(TINY), Extent(pages=2, page_documents=3))
    bodies, others = maker.recurring(), maker.recurring()
    documents = {document for body in bodies for document in body["documents"]}
    assert len({body["query"] for body in bodies}) == len(bodies) == 24
    assert all(len(set(body["documents"])) == 3 for body in bodies)
    assert len(documents) == 6
    assert documents.isdisjoint(document for body in others for document in body["documents"])


def test_the_expected_gain_is_that_of_the_tokens() -> None:
    row = SplitRow("long", 10, prefix_tokens=100, suffix_tokens=800, whole=0.9, split=0.5, gain=1.8)
    assert (row.share_per_prefix, row.expected) == (4.0, 1.8)
