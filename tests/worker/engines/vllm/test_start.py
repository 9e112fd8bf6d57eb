"""A worker whose checkpoint or arguments are wrong ends with a failure and one sentence, whatever
vLLM logs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import TINY
from tests.worker.engines.vllm.adapters import make_adapter
from tests.worker.engines.vllm.engine_worker import command, environment, python
from tests.worker.engines.vllm.test_faults import logged
from tests.worker.test_golden_check import wrong_logit

pytestmark = pytest.mark.slow


def refusal(*arguments: str, **changes: str) -> str:
    """The one message with which `gmr worker` ends."""
    ended = subprocess.run(
        command("worker", *arguments),
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr

    (message,) = logged(ended.stderr, "error")
    assert "\n" not in message
    return message


def test_golden_pairs_that_come_out_otherwise(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(TINY, tmp_path / "copy"))
    wrong_logit(checkpoint)
    message = refusal("--model", str(checkpoint))
    assert message.startswith("gmr-tiny: golden pair 3 (")
    assert message.endswith(".")


def test_an_engine_argument_that_vllm_lacks() -> None:
    said = refusal(RERANK_ENGINE_MAX_NUM_SEQ="8")
    assert (
        said == "vLLM has no engine argument RERANK_ENGINE_MAX_NUM_SEQ; RERANK_ENGINE_MAX_NUM_SEQS?"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [("model.model.language_model.layers.", "model.layers."), ("self_attn.q_proj", "attention.wq")],
)
def test_an_adapter_that_has_no_place_in_the_network(tmp_path: Path, old: str, new: str) -> None:
    """vLLM would serve the base's scores under the first one's name, and end with the first request
    for the second."""
    make_adapter(tmp_path / "lost", 4, 1)
    weights = tmp_path / "lost" / "adapter_model.safetensors"
    renamed = {name.replace(old, new): tensor for name, tensor in load_file(weights).items()}
    save_file(renamed, weights)
    said = refusal("--model", str(TINY), RERANK_ADAPTERS=f"lost={weights.parent}")

    assert said.startswith("lost: the network has no place for base_model.model.")
    assert new in said


ARGUMENTS = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from model_store.checkpoint import resolve
from service.worker.engines.base import CannotLoad
from service.worker.engines.vllm.arguments import engine_arguments

checkpoint = resolve("gmr-tiny")
for chosen in json.loads(sys.argv[1]):
    try:
        made = engine_arguments(AsyncEngineArgs, checkpoint, [], chosen, on_cpu=True)
        names = [*chosen, "runner", "max_num_batched_tokens"]
        print(json.dumps({name: str(getattr(made, name)) for name in names}))
    except CannotLoad as refusal:
        print(json.dumps(str(refusal)))
"""


def read_by_vllm(*chosen: dict[str, str]) -> list[Any]:
    """vLLM's own arguments for each choice: values, or the sentence that refuses the choice."""
    script = [python(), "-c", ARGUMENTS, json.dumps(chosen)]
    ended = subprocess.run(
        script, env=environment(), capture_output=True, text=True, timeout=300, check=True
    )
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith(("{", '"'))]


def test_engine_arguments_as_vllm_reads_them() -> None:
    settings: list[dict[str, str]] = [
        {"dtype": "purple"},
        {"max_num_seqs": "many"},
        {"enable_prefix_caching": "maybe"},
        {"runner": "generate"},
        {
            "dtype": "bfloat16",
            "enable_prefix_caching": "False",
            "max_num_batched_tokens": "4096",
            "quantization": "fp8",
        },
        {},
    ]
    purple, many, maybe, generate, chosen, default = read_by_vllm(*settings)
    for said, word in ((purple, "purple"), (many, "many"), (maybe, "maybe")):
        assert said.startswith("An engine argument is wrong: ")
        assert word in said
        assert "\n" not in said
        assert said.endswith(".")

    assert generate == "RERANK_ENGINE_RUNNER cannot be set: scoring depends on it."
    assert chosen == settings[4] | {"runner": "pooling"}
    assert default == {"runner": "pooling", "max_num_batched_tokens": "2048"}
