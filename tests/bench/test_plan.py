"""A plan has the options as typed, checked: a wrong option is one sentence, and our worker and
vLLM's tuned server get the same settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from service.bench.plan import BenchRefused, Plan, make_plan

TYPED: dict[str, Any] = {
    "model": "gmr-tiny",
    "contenders": "ours,vllm",
    "workloads": "T,R",
    "callers": "1,8",
    "samples": 5,
    "documents": 100,
    "dtype": None,
    "device": "cpu",
    "engine": "vllm",
    "quantization": None,
    "python_vllm": Path(sys.executable),
    "output": None,
}


def plan(**options: Any) -> Plan:
    return make_plan(**TYPED | options)


def test_options_are_read_as_typed() -> None:
    made = plan(contenders=" ours, vllm ,ours", callers="8,1, 8")
    assert (made.contenders, made.workloads, made.callers) == (("ours", "vllm"), ("T", "R"), (8, 1))
    assert made.python_vllm == sys.executable


@pytest.mark.parametrize(
    ("model", "typed", "dtype"),
    [
        ("gmr-tiny", None, "float32"),
        ("generated", None, "bfloat16"),
        ("gmr-tiny", "bfloat16", "bfloat16"),
    ],
)
def test_the_dtype_depends_on_the_checkpoint_unless_it_is_typed(
    model: str, typed: str | None, dtype: str
) -> None:
    assert plan(model=model, dtype=typed).dtype == dtype


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workloads": "T,X"}, "There is no workload 'X': choose from T, Q, L, C, R, D, DI."),
        (
            {"workloads": "D,T"},
            "D and DI have checkpoints of their own: run them apart from others.",
        ),
        (
            {"workloads": "D"},
            "There is no contender 'vllm': choose from ours, vllm-tuned.",
        ),
        (
            {"workloads": "D", "contenders": None, "pool": 99},
            "The pool has from --documents to 100000 documents.",
        ),
        (
            {"workloads": "DI", "contenders": None, "prompts": "both"},
            "There is no prompt 'both': choose from document, query.",
        ),
        (
            {"contenders": "ours,tgi"},
            (
                "There is no contender 'tgi': choose from ours, vllm, vllm-tuned, torch, naive,"
                " naive-last."
            ),
        ),
        ({"dtype": "float16"}, "There is no dtype 'float16': choose from float32, bfloat16."),
        ({"device": "tpu"}, "There is no device 'tpu': choose from cpu, cuda."),
        ({"callers": "1,0"}, "Callers are whole numbers from 1 to 256, comma-separated."),
        ({"callers": "1,257"}, "Callers are whole numbers from 1 to 256, comma-separated."),
        ({"callers": "one"}, "Callers are whole numbers from 1 to 256, comma-separated."),
        ({"python_vllm": Path("nowhere/python")}, "There is no interpreter nowhere/python."),
        ({"model": "3b", "contenders": "ours,naive"}, "3b has no weights: leave out naive."),
        (
            {"quantization": "fp8", "contenders": "ours,torch"},
            "Only vLLM quantises: leave out torch.",
        ),
    ],
)
def test_what_cannot_be_run_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchRefused) as refused:
        plan(**options)
    assert str(refused.value) == sentence


def test_documents_that_come_back_have_contenders_of_their_own() -> None:
    made = plan(workloads="D,DI", contenders=None)
    assert (made.contenders, made.prompts) == (("ours", "vllm-tuned"), ("document", "query"))
    assert made.pool == 1000
    assert plan(contenders=None).contenders == ("ours", "vllm", "vllm-tuned", "torch", "naive")
    assert (plan().prompts, plan().pool) == ((), 0)


def test_the_tuned_server_gets_what_the_environment_says_of_our_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RERANK_ENGINE_MAX_NUM_BATCHED_TOKENS", "512")
    settings = plan().engine_settings()
    assert settings == {"block_size": "32", "max_num_batched_tokens": "512", "dtype": "float32"}
    assert plan().common_settings() == {"dtype": "float32"}


def test_engines_share_a_gpu_and_quantise_alike() -> None:
    made = plan(model="7b", device="cuda", contenders="ours,vllm,vllm-tuned", quantization="fp8")
    assert made.common_settings() == {
        "dtype": "bfloat16",
        "quantization": "fp8",
        "load_format": "dummy",
        "gpu_memory_utilization": "0.30",
    }
    assert made.engine_settings().items() > made.common_settings().items()


def test_each_prompt_and_each_worker_is_an_engine_that_shares_a_gpu() -> None:
    made = plan(model="3b", device="cuda", workloads="D", contenders="ours,vllm-tuned")
    assert made.common_settings()["gpu_memory_utilization"] == "0.23"
    made = plan(model="3b", device="cuda", contenders="ours", workers=2)
    assert made.common_settings()["gpu_memory_utilization"] == "0.45"
