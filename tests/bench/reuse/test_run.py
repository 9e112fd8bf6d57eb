"""`gmr bench --workloads D,DI` as an operator runs it: what came back was reused, and scores are
those of the first time."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.bench.results import AGREEMENT
from tests.bench.comparison.test_run import EAGER, VLLM, measured


@pytest.mark.slow
def test_documents_that_come_back_are_reused_and_score_as_at_first(tmp_path: Path) -> None:
    printed, report = measured(
        "--workloads D,DI --contenders ours --prompts document --pool 4 --documents 2 --samples 1"
        f" --python-vllm {VLLM}",
        tmp_path / "documents.json",
        **EAGER,
    )
    assert "void" not in printed
    assert (report["pool"], report["kv_cache_gib"]) == (4, 1)

    shown = [(row["workload"], row["documents"]) for row in report["rows"]]
    assert shown == [("D", "cold"), ("D", "warm"), ("DI", "cold"), ("DI", "warm")]
    for cold, warm, document_tokens in (
        (*report["rows"][:2], 130),
        (*report["rows"][2:], 256),
    ):
        assert max(cold["warm_off_cold"], warm["warm_off_cold"]) <= AGREEMENT["float32"]
        assert cold["computed_a_pair"] > document_tokens > warm["computed_a_pair"]
        reused_cold, reused_warm = warm["check_reused"]
        assert reused_cold < 0.5 < reused_warm
        assert warm["gateway_cpu_ms_a_request"] >= 0
