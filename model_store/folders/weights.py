"""A folder's weights, checked by the headers of its safetensors files: complete and all read.

Knows files' headers and the network's tensors, loads nothing. Invariant: weights that pass are
loaded alike by transformers and by vLLM: no tensor is missing, none is left over, none is there
twice, and no file is read by one of them alone.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.folders.json_files import read_json, refuse_pointer
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Architecture, Shapes
from model_store.networks.catalogue import of_config

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own bound
_CHUNK = 2**22
_FLOATS = frozenset(("F32", "F16", "BF16"))
_WRAPPERS = {
    "base_model.model.": "peft's wrapper",
    "module.": "PyTorch's DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "PyTorch's FSDP",
}
_QUANTISED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a header describes it; `start` and `end` are where its bytes lie in the file."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def quantization_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The method by which weights are quantised, such as `awq`; empty where they are not."""
    for level in (config, config.get("text_config")):
        stated = level.get("quantization_config") if isinstance(level, Mapping) else None
        if stated:
            return (
                str(stated.get("quant_method") or "unnamed")
                if isinstance(stated, Mapping)
                else "unnamed"
            )
    beside = [file for file in _QUANTISED_FILES if (folder / file).is_file()]
    return f"as {beside[0]} says" if beside else ""


def check_weights(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Compare the weights' headers with what the network of `config` reads.

    Raises `CheckpointUnusable` that names the first file or tensor which is wrong, and says what to
    do.
    """
    architecture = of_config(name, config)
    try:
        expected = architecture.tensor_shapes(config)
    except ValueError as error:
        raise CheckpointUnusable(
            f"{name}: config.json describes no network that can be built: {error}."
        ) from None

    found = _by_current_name(name, architecture, _stored(name, folder))
    quantised = bool(quantization_of(folder, config))
    _refuse_wrapped(name, found)
    if architecture.is_tied(config) and architecture.head in found:
        _refuse_second_head(name, folder, architecture, found)
        expected[architecture.head] = expected[architecture.embeddings]

    lacks_head = found.keys() ^ expected.keys() == {architecture.head}
    _refuse_differing_names(name, found, expected, quantised=quantised, only_head=lacks_head)
    if not quantised:
        _refuse_differing_shapes(name, found, expected)


def weight_files(name: str, folder: Path) -> list[str]:
    """The files that hold the weights; raises `CheckpointUnusable` where one is missing, or loaders
    would choose differently."""
    lying = sorted(path.name for path in folder.glob("*.safetensors"))
    index = read_json(name, folder, INDEX)
    if index is None:
        return _unindexed(name, folder, lying)

    stated = index.get("weight_map")
    named = sorted(set(map(str, stated.values()))) if isinstance(stated, dict) else []
    if not named or any("/" in file or not file.endswith(".safetensors") for file in named):
        raise CheckpointUnusable(f"{name}: {INDEX} names no safetensors files of the folder.")
    for file in named:
        if file not in lying:
            raise CheckpointUnusable(
                f"{name}: {file} is missing, and {INDEX} names it: the download was not completed."
            )
    _refuse_others(name, lying, named, f"is not named in {INDEX}")
    return named


def _unindexed(name: str, folder: Path, lying: list[str]) -> list[str]:
    if WEIGHTS in lying:
        _refuse_others(name, lying, [WEIGHTS], f"lies beside {WEIGHTS}")
        return [WEIGHTS]
    if any(re.fullmatch(r"model-\d+-of-\d+\.safetensors", file) for file in lying):
        raise CheckpointUnusable(
            f"{name}: {INDEX} is missing, which says what each part of the weights holds."
        )
    if any(folder.glob("*.bin")):
        raise CheckpointUnusable(
            f"{name}: there are no safetensors weights, and pickled ones (*.bin) are never opened."
        )
    raise CheckpointUnusable(
        f"{name}: there are no safetensors weights ({WEIGHTS}, or {INDEX} and the files that it"
        " names)."
    )


def _refuse_others(name: str, lying: Iterable[str], read: list[str], why: str) -> None:
    for file in lying:
        if file not in read:
            raise CheckpointUnusable(
                f"{name}: {file} {why}: some loaders read it and others do not; remove it."
            )


def _stored(name: str, folder: Path) -> list[StoredTensor]:
    found = []
    for file in weight_files(name, folder):
        found += _header(name, folder, file)
    return found


def _header(name: str, folder: Path, file: str) -> list[StoredTensor]:
    """A file's tensors: eight bytes with the header's length, the header in JSON, then the tensors'
    bytes."""
    path = folder / file
    try:
        with path.open("rb") as opened:
            beginning = opened.read(64)
            refuse_pointer(name, file, beginning)
            (length,) = struct.unpack("<Q", beginning[:8])
            if length > _MAX_HEADER_BYTES:
                raise ValueError
            opened.seek(8)
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        found = [_tensor(file, tensor, stated, 8 + length) for tensor, stated in header.items()]
    except OSError as error:
        raise CheckpointUnusable(f"{name}: {file} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError):
        raise CheckpointUnusable(f"{name}: {file} is no safetensors file, or is damaged.") from None

    due, size = max((tensor.end for tensor in found), default=8 + length), path.stat().st_size
    if size != due:
        raise CheckpointUnusable(
            f"{name}: {file} has {size} bytes where its header says {due}: it is cut off or"
            " damaged."
        )
    return found


def _tensor(file: str, name: str, stated: Mapping[str, Any], base: int) -> StoredTensor:
    start, end = (int(place) + base for place in stated["data_offsets"])
    return StoredTensor(
        file, name, str(stated["dtype"]), tuple(map(int, stated["shape"])), start, end
    )


def _by_current_name(
    name: str, architecture: Architecture, stored: Iterable[StoredTensor]
) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for tensor in stored:
        other = found.setdefault(architecture.current_name(tensor.name), tensor)
        if other is not tensor:
            twice = (
                other.name
                if other.name == tensor.name
                else f"{other.name} and, under another name, {tensor.name}"
            )
            raise CheckpointUnusable(
                f"{name}: the weights hold {twice} twice ({other.file}, {tensor.file})."
            )
    return found


def _refuse_wrapped(name: str, found: Iterable[str]) -> None:
    for tensor in found:
        for prefix, wrapper in _WRAPPERS.items():
            if tensor.startswith(prefix):
                raise CheckpointUnusable(
                    f"{name}: the weights' names begin with {prefix!r}, as {wrapper} saves them"
                    f" ({tensor}): save the network itself, for peft after merge_and_unload()."
                )


def _refuse_differing_names(
    name: str,
    found: Mapping[str, StoredTensor],
    expected: Shapes,
    *,
    quantised: bool,
    only_head: bool,
) -> None:
    """Raise `CheckpointUnusable` for a tensor that nothing reads, then for one that is missing.

    `only_head` says that the two sides differ by the output head alone.
    """
    missing, unread = expected.keys() - found.keys(), found.keys() - expected.keys()
    # a matrix is stored as several tensors: what each is called is its method's own business
    if quantised:
        modules = {tensor.rpartition(".")[0] for tensor in expected}
        held = {module for tensor in found for module in _ancestors(tensor)}
        unread = {tensor for tensor in unread if modules.isdisjoint(_ancestors(tensor))}
        missing = {tensor for tensor in missing if tensor.rpartition(".")[0] not in held}

    if unread:
        first = found[min(unread)].name
        hint = ": a LoRA adapter that was not merged" if ".lora_" in first else ""
        raise CheckpointUnusable(
            f"{name}: the weights hold {first}, which nothing reads ({len(unread)} in all){hint}."
        )
    if missing:
        hint = ", and config.json does not say tie_word_embeddings" if only_head else ""
        raise CheckpointUnusable(
            f"{name}: the weights lack {min(missing)} ({len(missing)} missing in all){hint}."
        )


def _ancestors(tensor: str) -> list[str]:
    """The modules that a tensor is in: `a.b` and `a` of `a.b.weight`."""
    parts = tensor.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _refuse_differing_shapes(
    name: str, found: Mapping[str, StoredTensor], expected: Shapes
) -> None:
    for current_name, tensor in found.items():
        due = expected[current_name]
        if tensor.shape != due:
            raise CheckpointUnusable(
                f"{name}: {tensor.name} has the shape {list(tensor.shape)}, and config.json asks"
                f" for {list(due)}."
            )
        if tensor.dtype not in _FLOATS:
            raise CheckpointUnusable(
                f"{name}: {tensor.name} is stored as {tensor.dtype}, and config.json says nothing"
                " of it."
            )


def _refuse_second_head(
    name: str, folder: Path, architecture: Architecture, found: Mapping[str, StoredTensor]
) -> None:
    """Some trainers keep a head beside tied embeddings: it must equal them to the byte.

    Loaders differ in what they make of a head that differs.
    """
    head = found[architecture.head]
    embeddings = found.get(architecture.embeddings, head)
    alike = (head.dtype, head.shape) == (embeddings.dtype, embeddings.shape)
    if alike and _same_bytes(folder, head, embeddings):
        return
    raise CheckpointUnusable(
        f"{name}: {architecture.head} differs from the embeddings although config.json says"
        " tie_word_embeddings: set that to false, or remove the tensor."
    )


def _same_bytes(folder: Path, one: StoredTensor, other: StoredTensor) -> bool:
    with (folder / one.file).open("rb") as first, (folder / other.file).open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        left = one.end - one.start
        while left > 0:
            length = min(left, _CHUNK)
            if first.read(length) != second.read(length):
                return False
            left -= length
    return True
