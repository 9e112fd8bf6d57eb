"""vLLM's engine arguments: those that scoring fixes, those that the operator sets, and defaults.

Depends on vLLM's argument names and its command line's types, and starts nothing. Invariant: an
argument that vLLM does not have, or that scoring depends on, ends in one sentence and never in an
engine.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from argparse import Namespace
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any, NoReturn

from model_store.checkpoint import Adapter, Checkpoint
from model_store.families.readout import GeneratedScore, TwoLayerHead
from model_store.folders.image_processor import refuse_without_processor
from model_store.folders.vllm_overrides import vllm_overrides
from service.worker.engines.base import CannotLoad
from service.worker.settings import ENGINE_PREFIX

_CPU = {
    "dtype": "float32",
    "block_size": "32",
    "max_num_batched_tokens": "2048",
    "kv_cache_memory_bytes": str(2**31),
    "skip_mm_profiling": "true",
}
"""By itself vLLM has blocks of 128 tokens on a CPU, and candidates share whole blocks only; and its
cache takes nearly all memory."""
_GPU = {"dtype": "bfloat16", "max_num_batched_tokens": "16384", "max_num_seqs": "1024"}
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BOTH = {
    "disable_log_stats": "false",
    "enable_log_requests": "false",
    "custom_histogram_buckets": json.dumps({"request_latency": _LATENCIES}),
}
"""vLLM's own latency buckets begin at 0.3 seconds, which is a whole request here."""

_DECIDES_SCORES = (
    "quantization",
    "load_format",
    "kv_cache_dtype",
    "mm_encoder_attn_dtype",
    "model_impl",
)
_SETTLED = frozenset(
    (
        "code_revision",
        "hf_config_path",
        "mm_processor_kwargs",
        "model_weights",
        "pooler_config",
        "revision",
        "skip_tokenizer_init",
        "tokenizer",
        "tokenizer_mode",
        "tokenizer_revision",
    )
)
"""Arguments with which vLLM would read other files than the checkpoint's, or read them in another
way. The digest covers none of them."""
_SAFETENSORS_FORMATS = (
    "auto",
    "safetensors",
    "fastsafetensors",
    "runai_streamer",
    "instanttensor",
    "bitsandbytes",
    "dummy",
)
_IMAGES = {
    "enable_mm_embeds": True,
    "enable_tower_connector_lora": False,
    "mm_device_do_normalize": False,  # the vision tower gets pixels that are normalised already
    "mm_processor_cache_type": "lru",  # its sending half reports what the engine holds
}
_CLASSIFY = {"runner": "pooling", "convert": "classify"}
_GENERATE = {
    "runner": "generate",
    "convert": "none",
    "generation_config": "vllm",  # no sampling of the folder's own
    "logprobs_mode": "raw_logprobs",
}
_LORAS_AT_ONCE = 8
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_EXTENSION = "service.worker.engines.vllm.vision.VisionExtension"


def decides_scores(arguments: Mapping[str, str]) -> list[str]:
    """The operator's arguments that change scores, for the model's digest."""
    return [f"{name}={arguments[name]}" for name in _DECIDES_SCORES if name in arguments]


def engine_arguments(
    kind: Any,
    checkpoint: Checkpoint,
    adapters: Sequence[Adapter],
    chosen: Mapping[str, str],
    *,
    on_cpu: bool,
    max_completion_tokens: int = 0,
) -> Any:
    """vLLM's `AsyncEngineArgs` from fixed arguments, `chosen` ones and defaults.

    `kind` is that class. Raises `CannotLoad` for arguments that cannot be, and
    `CheckpointUnusable` for a folder that vLLM cannot read.
    """
    if checkpoint.family.images:
        refuse_without_processor(checkpoint.name, checkpoint.folder)
    known = {field.name for field in dataclasses.fields(kind)}
    fixed = _fixed(checkpoint, adapters, on_cpu=on_cpu)
    fixed["max_model_len"] += max_completion_tokens
    for name in fixed.keys() - known:
        del fixed[name]
    _refuse_wrong(chosen, known, fixed)

    arguments: dict[str, str] = {}
    defaults = _defaults(adapters, chosen, on_cpu=on_cpu)
    if checkpoint.family.cacheable_side == "none":
        # a network that reads a whole pair at once reads it in one step
        least = max(int(defaults["max_num_batched_tokens"]), checkpoint.manifest.max_tokens)
        defaults["max_num_batched_tokens"] = str(least)
    for name, value in defaults.items():
        if name in known and name not in fixed:
            arguments[name] = value
    read = _read(kind, arguments | dict(chosen))
    if all(getattr(read, name, None) for name in ("otlp_traces_endpoint", "disable_log_stats")):
        # vLLM would end with the first pair
        raise CannotLoad(
            f"{_setting('otlp_traces_endpoint')} needs {_setting('disable_log_stats')}=false."
        )

    for name, value in fixed.items():
        setattr(read, name, value)
    return kind.from_cli_args(read)


def _refuse_wrong(chosen: Mapping[str, str], known: Collection[str], fixed: Container[str]) -> None:
    """Raise `CannotLoad` for a chosen argument that vLLM lacks or that cannot be set."""
    for name in sorted(chosen):
        if name not in known:
            similar = difflib.get_close_matches(name, known, 1)
            suggestion = f"; {_setting(similar[0])}?" if similar else "."
            raise CannotLoad(f"vLLM has no engine argument {_setting(name)}{suggestion}")
        if name in fixed or name in _SETTLED:
            raise CannotLoad(f"{_setting(name)} cannot be set: scoring depends on it.")

    if chosen.get("load_format", "auto") not in _SAFETENSORS_FORMATS:
        raise CannotLoad(
            f"{_setting('load_format')} is one of {', '.join(_SAFETENSORS_FORMATS)}: others read"
            " unchecked files."
        )


def _defaults(
    adapters: Sequence[Adapter], chosen: Mapping[str, str], *, on_cpu: bool
) -> dict[str, str]:
    """Arguments for which this project has another default than vLLM."""
    if on_cpu:
        return _BOTH | _CPU

    defaults = _BOTH | _GPU
    defaults["max_loras"] = str(min(max(len(adapters), 1), _LORAS_AT_ONCE))
    if len(adapters) > _LORAS_AT_ONCE and "max_loras" not in chosen:
        # an adapter that vLLM has evicted is read from its folder again, unverified
        defaults["max_cpu_loras"] = str(len(adapters))
    return defaults


def _fixed(checkpoint: Checkpoint, adapters: Sequence[Adapter], *, on_cpu: bool) -> dict[str, Any]:
    """Arguments that scoring depends on.

    With them vLLM computes the product of the last position and the read-out's row, or generates
    text where a score is read from text.
    """
    generates = isinstance(checkpoint.readout, GeneratedScore)
    fixed: dict[str, Any] = (_GENERATE if generates else _CLASSIFY) | {
        "model": str(checkpoint.folder.resolve()),
        "hf_overrides": vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout),
        "trust_remote_code": False,  # no code of a folder's own
        "config_format": "hf",
        "max_model_len": checkpoint.manifest.max_tokens,
        "worker_extension_cls": _EXTENSION,
    }
    if isinstance(checkpoint.readout, TwoLayerHead):
        fixed["pooler_config"] = _raw_pooler()
    if checkpoint.family.images:
        fixed |= _IMAGES
    if adapters:
        fixed |= {"enable_lora": True, "max_lora_rank": _lora_rank(adapters)}
        if on_cpu:
            # in a mixed batch vLLM gives the model itself the last slot's weights: one slot more
            # than adapters stays empty
            fixed["max_loras"] = len(adapters) + 1
    return fixed


def _raw_pooler() -> Any:
    """The pooler of a head of the model's own, without the shift that vLLM gives some of them."""
    from vllm.config import PoolerConfig

    return PoolerConfig(logit_mean=0.0)


def _lora_rank(adapters: Sequence[Adapter]) -> int:
    """The least rank that vLLM accepts and all adapters fit in; raises `CannotLoad`."""
    highest = max(adapter.rank for adapter in adapters)
    for rank in _LORA_RANKS:
        if rank >= highest:
            return rank
    raise CannotLoad(
        f"An adapter of rank {highest} cannot be served: vLLM stops at {_LORA_RANKS[-1]}."
    )


def _read(kind: Any, arguments: Mapping[str, str]) -> Namespace:
    """Arguments parsed by vLLM's own command line."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise CannotLoad(f"An engine argument is wrong: {message}.")

    off = {field.name for field in dataclasses.fields(kind) if field.default is False}
    line: list[str] = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        match value.lower():
            case "true":
                line.append(f"--{option}")
            # not every switch that is off by default has an option that turns it off
            case "false" if name in off:
                pass
            case "false":
                line.append(f"--no-{option}")
            case _:
                line.append(f"--{option}={value}")
    read: Namespace = kind.add_cli_args(Parser()).parse_args(line)
    return read


def _setting(name: str) -> str:
    return ENGINE_PREFIX + name.upper()
