"""Raw scores of texts by several checkpoints, one after the other in one process of vLLM.

A start of vLLM takes half a minute, and another small checkpoint in the same process a few seconds.
The engine has the arguments that the service gives it, and runs in the process of the program.
The program reads a task from a JSON file and writes the answer to another, since vLLM prints on
both standard streams.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Prompt
from service.worker.engines.vllm.arguments import engine_arguments
from service.worker.engines.vllm.installation import prepare_environment, quiet

CHOSEN = {"enforce_eager": "true", "kv_cache_memory_bytes": str(2**28), "dtype": "float32"}


def main() -> None:
    """`TASK ANSWER`: `{folder: [[instruction, query, document], ...]}` to `{folder: [score]}`."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    quiet()
    prepare_environment(on_cpu=True)
    answer = {folder: _scores(resolve(folder), pairs) for folder, pairs in task.items()}
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


def _scores(checkpoint: Checkpoint, pairs: list[list[str]]) -> list[float]:
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from service.worker.engines.vllm.pooling import pooling_params

    engine = LLMEngine.from_engine_args(
        engine_arguments(EngineArgs, checkpoint, (), CHOSEN, on_cpu=True)
    )
    for number, (instruction, query, document) in enumerate(pairs):
        (prompt,) = checkpoint.family.render((instruction,), (query,), [(document,)])
        assert isinstance(prompt, Prompt)
        engine.add_request(
            str(number), {"prompt_token_ids": list(prompt.ids)}, pooling_params(prompt)
        )

    found: dict[int, float] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                found[int(output.request_id)] = float(output.outputs.data[0])
    del engine
    cleanup_dist_env_and_memory()
    return [found[number] for number in range(len(pairs))]


if __name__ == "__main__":
    main()
