"""A GMR of a published size with random weights, in the form in which hubs have checkpoints.

Depends on shapes and files, and loads no network. Invariant: no more than one shard is in memory,
and a folder whose index exists has all of its weights.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer
from model_store.folders.plain import CONFIG, read_config
from model_store.folders.weights import INDEX
from model_store.json_files import read_json
from model_store.networks.catalogue import decoder_of_config
from service.bench.generated import write_shapes

SHARD_BYTES = 2_000_000_000
_BYTES_A_PARAMETER = 2
_DEVIATION = 0.02
"""Standard deviation of weights before training, as Qwen2.5-VL's configuration states it."""
_BLOCK = 4_194_301
"""Random numbers that are repeated: a prime number of them, so that no two rows of a matrix are
equal."""

_STATED_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
Advance = Callable[[int], None]


def write_folder(files_from: Path, folder: Path, size: str, tokenizer: Path | None = None) -> None:
    """Write all files of a GMR of `size` but its weights.

    `files_from` is another checkpoint's folder, and `tokenizer` a `tokenizer.json` in the place of
    its own. Raises `TokenizerMismatch` for a tokenizer without Qwen-VL's control tokens.
    """
    write_shapes(files_from, folder, size)
    if tokenizer is None:
        return

    shutil.copyfile(tokenizer, folder / TOKENIZER_FILE)
    controls = LiteralTokenizer.load(folder)
    config = read_json(folder.name, folder, CONFIG) or {}
    for field, token in _STATED_TOKENS.items():
        config[field] = controls.control(token)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_weights(folder: Path, *, advance: Advance, shard: int = SHARD_BYTES) -> None:
    """Write random bf16 weights for a folder's `config.json`, in shards of at most `shard` bytes
    or of one tensor."""
    shards = list(_shards(_shapes(folder), shard))
    block = _random_block()
    weight_map: dict[str, str] = {}
    total = 0
    for number, shapes in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {tensor: _filled(tensor, shape, block) for tensor, shape in shapes.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        (folder / name).chmod((folder / CONFIG).stat().st_mode)  # made readable by their owner only

        written = sum(map(_bytes, shapes.values()))
        total += written
        weight_map |= dict.fromkeys(shapes, name)
        advance(written)

    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights that a folder's `config.json` describes, in bf16."""
    return sum(map(_bytes, _shapes(folder).values()))


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor by the oldest of its names, which hubs have."""
    config = read_config(folder.name, folder)
    architecture = decoder_of_config(folder.name, config)
    shapes = {}
    for name, shape in sorted(architecture.tensor_shapes(config).items()):
        shapes[architecture.oldest_name(name)] = tuple(shape)
    return shapes


def _shards(shapes: dict[str, tuple[int, ...]], limit: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Tensors in files of at most `limit` bytes, or of one tensor."""
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + _bytes(shape) > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += _bytes(shape)
    yield shard


def _bytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _BYTES_A_PARAMETER


def _random_block() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(_BLOCK, generator=generator) * _DEVIATION).to(torch.bfloat16)


def _filled(name: str, shape: tuple[int, ...], block: Tensor) -> Tensor:
    """A tensor of random numbers; of ones where it is a norm's scale."""
    if "norm" in name or ".ln_q." in name:
        return torch.ones(shape, dtype=torch.bfloat16)
    count = math.prod(shape)
    return block.repeat(math.ceil(count / _BLOCK))[:count].view(shape).contiguous()
