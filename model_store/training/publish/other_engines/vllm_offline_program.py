"""Scores of golden pairs by vLLM's offline engine, for any interpreter that has vLLM.

Reads its task from a JSON file and writes `[logits]` to another, since vLLM prints on both standard
streams. Depends on token ids and pictures of the model's size, not on families. Invariant: it
imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_ON_CPU = {"block_size": 32, "kv_cache_memory_bytes": 2**30}


def main() -> None:
    """`TASK ANSWER`: score the pairs of a task as the service's workers do; write the logits."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # processes of its own would take longer to start than all pairs to score
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault(
        "VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0))))
    )
    Path(sys.argv[2]).write_text(json.dumps(_logits(task)), encoding="utf-8")


def _logits(task: dict[str, Any]) -> list[float]:
    from PIL import Image
    from vllm import LLM
    from vllm.lora.request import LoRARequest
    from vllm.platforms import current_platform
    from vllm.pooling_params import PoolingParams

    adapter = task["adapter"]
    on_cpu = current_platform.is_cpu()
    options: dict[str, Any] = dict(_ON_CPU) if on_cpu else {}
    if task["reads_images"]:
        images = max(len(pair["images"]) for pair in task["pairs"])
        options |= {"limit_mm_per_prompt": {"image": images or 1}}
        options |= {"skip_mm_profiling": True} if on_cpu else {}
    if adapter:
        options |= {"enable_lora": True, "max_lora_rank": task["rank"]}
    engine = LLM(
        model=task["folder"],
        runner="pooling",
        convert="classify",
        hf_overrides=task["overrides"],
        dtype="float32",
        max_model_len=task["max_tokens"],
        max_num_batched_tokens=task["max_tokens"],
        enforce_eager=True,
        **options,
    )

    prompts: list[dict[str, Any]] = []
    for pair in task["pairs"]:
        prompt: dict[str, Any] = {"prompt_token_ids": pair["ids"]}
        if pair["images"]:
            pictures = [Image.open(path).convert("RGB") for path in pair["images"]]
            prompt["multi_modal_data"] = {"image": pictures}
        prompts.append(prompt)

    outputs = engine.encode(
        prompts,
        pooling_params=PoolingParams(use_activation=False),
        pooling_task="classify",
        lora_request=LoRARequest("candidate", 1, adapter) if adapter else None,
        use_tqdm=False,
    )
    return [float(output.outputs.data[0]) for output in outputs]


if __name__ == "__main__":
    main()
