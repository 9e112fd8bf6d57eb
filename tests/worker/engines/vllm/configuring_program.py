"""vLLM's configuration of folders: reads a folder a line, and writes its configuration as JSON.

A program for the interpreter that has vLLM. Lines of vLLM's own begin otherwise.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs

from model_store.checkpoint import resolve
from model_store.manifest import CheckpointUnusable
from service.worker.engines.base import CannotLoad
from service.worker.engines.vllm.arguments import engine_arguments

_COUNTS = ("hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size")
_TOWER = ("depth", "hidden_size", "embed_dim", "num_heads", "in_channels", "window_size")
_ROPE = ("mrope_section", "rope_theta", "rope_type")


def main() -> None:
    """One line of JSON for each line of standard input."""
    for line in sys.stdin:
        try:
            found = _configuration(line.strip())
        except (CannotLoad, CheckpointUnusable) as refusal:
            found = {"refused": str(refusal)}
        except Exception:  # of any kind: the next folder is another test's
            found = {"failed": traceback.format_exc()}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _configuration(folder: str) -> dict[str, Any]:
    arguments = engine_arguments(AsyncEngineArgs, resolve(folder), (), {}, on_cpu=True)
    config = arguments.create_model_config()
    whole = config.hf_config
    text, vision = whole.get_text_config(), getattr(whole, "vision_config", None)
    rope = getattr(text, "rope_parameters", None) or {}
    return {
        "architecture": config.architecture,
        "architectures": whole.architectures,
        "tied": [whole.tie_word_embeddings, text.tie_word_embeddings],
        "rope": {key: rope.get(key) for key in _ROPE},
        "mrope": config.uses_mrope,
        "text": [getattr(text, key, None) for key in _COUNTS],
        "vision": [getattr(vision, key, None) for key in _TOWER],
        "runner": [config.runner_type, config.convert_type],
        "pooling": getattr(config.pooler_config, "seq_pooling_type", None),
        "dtype": str(config.dtype),
        "quantization": config.quantization,
    }


if __name__ == "__main__":
    main()
