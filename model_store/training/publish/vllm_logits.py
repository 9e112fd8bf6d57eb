"""Golden pairs through vLLM's own offline engine. Run by an interpreter that has vLLM, which need
not be this project's.

Reads its task from one JSON file and writes `[logits]` to another, since vLLM prints where it
likes. Knows token ids and pictures of a right size, no families. Invariant: it imports nothing of
this project.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_ON_CPU = {"block_size": 32, "kv_cache_memory_bytes": 2**30, "skip_mm_profiling": True}


def main() -> None:
    """`TASK ANSWER`: score the task's pairs, as the service's workers do, and write their
    logits."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")
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
    engine = LLM(
        model=task["folder"],
        runner="pooling",
        convert="classify",
        hf_overrides=task["overrides"],
        dtype="float32",
        max_model_len=task["max_tokens"],
        max_num_batched_tokens=task["max_tokens"],
        limit_mm_per_prompt={"image": max(len(pair["images"]) for pair in task["pairs"]) or 1},
        enforce_eager=True,
        **(_ON_CPU if current_platform.is_cpu() else {}),
        **({"enable_lora": True, "max_lora_rank": task["rank"]} if adapter else {}),
    )
    prompts = []
    for pair in task["pairs"]:
        prompt: dict[str, Any] = {"prompt_token_ids": pair["ids"]}
        if pair["images"]:
            prompt["multi_modal_data"] = {
                "image": [Image.open(path).convert("RGB") for path in pair["images"]]
            }
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
