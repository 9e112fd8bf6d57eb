"""The check of a folder's weights, by the headers of its safetensors files.

Depends on files' headers and on the network's tensors, and loads no weights. Invariant: weights
that pass are loaded alike by transformers and by vLLM. No tensor is missing, left over or stored
twice, and no file is read by one of the two alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from model_store.folders.tensors import StoredTensor, same_bytes, tensors_of_file
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Architecture, Shapes
from model_store.networks.catalogue import of_config

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FLOATS = frozenset(("F32", "F16", "BF16"))
_WRAPPERS = {
    "base_model.model.": "peft's wrapper",
    "module.": "PyTorch's DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "PyTorch's FSDP",
}
_CONSTANTS = ("embeddings.position_ids",)
"""Ends of names of tensors that hold 0, 1, 2 and so on."""
_QUANTISED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")


def quantization_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The method by which weights are quantised, such as `awq`; empty where they are not."""
    for level in (config, config.get("text_config")):
        if not isinstance(level, Mapping):
            continue
        stated = level.get("quantization_config")
        if isinstance(stated, Mapping) and stated:
            return str(stated.get("quant_method") or "unnamed")
        if stated:
            return "unnamed"

    for file in _QUANTISED_FILES:
        if (folder / file).is_file():
            return f"as {file} says"
    return ""


def tensor_shapes(name: str, config: Mapping[str, Any]) -> Shapes:
    """The tensors of the network of a `config.json`; raises `CheckpointUnusable`."""
    try:
        return of_config(name, config).tensor_shapes(config)
    except ValueError as error:
        raise CheckpointUnusable(
            f"{name}: config.json describes no network that can be built: {error}."
        ) from None


def check_weights(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Compare the weights' headers with the tensors that the network of `config` reads.

    Raises `CheckpointUnusable` that names the first file or tensor which is wrong, and the remedy.
    """
    architecture, expected = of_config(name, config), tensor_shapes(name, config)
    stored = _by_current_name(name, architecture, stored_tensors(name, folder))
    quantised = bool(quantization_of(folder, config))
    _refuse_wrapped(name, stored)

    if architecture.is_tied(config) and architecture.head in stored:
        _refuse_second_head(name, folder, architecture, stored)
        expected[architecture.head] = expected[architecture.embeddings]

    lacks_head = stored.keys() ^ expected.keys() == {architecture.head}
    _refuse_differing_names(name, stored, expected, quantised=quantised, only_head=lacks_head)
    if not quantised:
        _refuse_differing_shapes(name, stored, expected)


def count_parameters(name: str, folder: Path) -> int:
    """Numbers in a folder's weights, by their headers; of quantised ones, those that are stored."""
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(name, folder))


def is_constant(tensor: str) -> bool:
    """True for a tensor of counted numbers that older transformers saved and no loader reads."""
    return tensor.endswith(_CONSTANTS)


def weight_files(name: str, folder: Path) -> list[str]:
    """The files that hold the weights.

    Raises `CheckpointUnusable` where one is missing, or where loaders would choose differently.
    """
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    index = read_json(name, folder, INDEX)
    if index is None:
        return _files_without_index(name, folder, present)

    indexed = _indexed_files(name, index)
    for file in indexed:
        if file not in present:
            raise CheckpointUnusable(
                f"{name}: {file} is missing, and {INDEX} names it: the download was not completed."
            )
    _refuse_unread_files(name, present, indexed, f"is not named in {INDEX}")
    return indexed


def _indexed_files(name: str, index: Mapping[str, Any]) -> list[str]:
    """The files that an index names; raises `CheckpointUnusable` where they are none."""
    weight_map = index.get("weight_map")
    files = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    if not files or any("/" in file or not file.endswith(".safetensors") for file in files):
        raise CheckpointUnusable(f"{name}: {INDEX} names no safetensors files of the folder.")
    return sorted(files)


def _files_without_index(name: str, folder: Path, present: list[str]) -> list[str]:
    if WEIGHTS in present:
        _refuse_unread_files(name, present, [WEIGHTS], f"lies beside {WEIGHTS}")
        return [WEIGHTS]

    if any(re.fullmatch(r"model-\d+-of-\d+\.safetensors", file) for file in present):
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


def _refuse_unread_files(name: str, present: Iterable[str], read: list[str], reason: str) -> None:
    for file in present:
        if file not in read:
            raise CheckpointUnusable(
                f"{name}: {file} {reason}: some loaders read it and others do not; remove it."
            )


def stored_tensors(name: str, folder: Path) -> list[StoredTensor]:
    """Every tensor of a folder's weights; raises `CheckpointUnusable`."""
    tensors = []
    for file in weight_files(name, folder):
        tensors += tensors_of_file(name, folder, file)
    return [tensor for tensor in tensors if not is_constant(tensor.name)]


def _by_current_name(
    name: str, architecture: Architecture, tensors: Iterable[StoredTensor]
) -> dict[str, StoredTensor]:
    """Tensors by their names in today's network; raises `CheckpointUnusable` for a name twice."""
    named: dict[str, StoredTensor] = {}
    for tensor in tensors:
        first = named.setdefault(architecture.current_name(tensor.name), tensor)
        if first is tensor:
            continue

        repeated = first.name
        if first.name != tensor.name:
            repeated += f" and, under another name, {tensor.name}"
        raise CheckpointUnusable(
            f"{name}: the weights hold {repeated} twice ({first.file}, {tensor.file})."
        )
    return named


def _refuse_wrapped(name: str, stored: Iterable[str]) -> None:
    """Refuse weights that were saved with a wrapper's prefix before every name."""
    for tensor in stored:
        for prefix, wrapper in _WRAPPERS.items():
            if tensor.startswith(prefix):
                raise CheckpointUnusable(
                    f"{name}: the weights' names begin with {prefix!r}, as {wrapper} saves them"
                    f" ({tensor}): save the network itself, for peft after merge_and_unload()."
                )


def _refuse_differing_names(
    name: str,
    stored: Mapping[str, StoredTensor],
    expected: Shapes,
    *,
    quantised: bool,
    only_head: bool,
) -> None:
    """Raise `CheckpointUnusable` for a tensor that nothing reads, then for one that is missing.

    `only_head` states that the two sides differ by the output head alone.
    """
    missing, unread = expected.keys() - stored.keys(), stored.keys() - expected.keys()
    if quantised:
        missing, unread = _modules_that_differ(stored, expected, missing, unread)

    if unread:
        first = stored[min(unread)].name
        hint = ": a LoRA adapter that was not merged" if ".lora_" in first else ""
        raise CheckpointUnusable(
            f"{name}: the weights hold {first}, which nothing reads ({len(unread)} in all){hint}."
        )
    if missing:
        hint = ", and config.json does not say tie_word_embeddings" if only_head else ""
        raise CheckpointUnusable(
            f"{name}: the weights lack {min(missing)} ({len(missing)} missing in all){hint}."
        )


def _modules_that_differ(
    stored: Iterable[str], expected: Iterable[str], missing: set[str], unread: set[str]
) -> tuple[set[str], set[str]]:
    """The tensors of `missing` and `unread` whose module is missing or unknown as a whole.

    A quantised matrix is stored as several tensors, whose names its method chooses. So modules are
    compared instead of tensors.
    """
    expected_modules = {tensor.rpartition(".")[0] for tensor in expected}
    stored_modules: set[str] = set()
    for tensor in stored:
        stored_modules.update(_ancestors(tensor))

    still_missing = {name for name in missing if name.rpartition(".")[0] not in stored_modules}
    still_unread = {name for name in unread if expected_modules.isdisjoint(_ancestors(name))}
    return still_missing, still_unread


def _ancestors(tensor: str) -> list[str]:
    """The modules that a tensor belongs to: `a` and `a.b` for `a.b.weight`."""
    parts = tensor.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _refuse_differing_shapes(
    name: str, stored: Mapping[str, StoredTensor], expected: Shapes
) -> None:
    for current_name, tensor in stored.items():
        shape = expected[current_name]
        if tensor.shape != shape:
            raise CheckpointUnusable(
                f"{name}: {tensor.name} has the shape {list(tensor.shape)}, and config.json asks"
                f" for {list(shape)}."
            )
        if tensor.dtype not in _FLOATS:
            raise CheckpointUnusable(
                f"{name}: {tensor.name} is stored as {tensor.dtype}, and config.json says nothing"
                " of it."
            )


def _refuse_second_head(
    name: str, folder: Path, architecture: Architecture, stored: Mapping[str, StoredTensor]
) -> None:
    """Refuse a head beside tied embeddings, unless it equals them to the byte.

    Some trainers save such a head. Loaders disagree on which of the two they read.
    """
    head = stored[architecture.head]
    embeddings = stored.get(architecture.embeddings, head)
    alike = (head.dtype, head.shape) == (embeddings.dtype, embeddings.shape)
    if alike and same_bytes(folder, head, embeddings):
        return

    raise CheckpointUnusable(
        f"{name}: {architecture.head} differs from the embeddings although config.json says"
        " tie_word_embeddings: set that to false, or remove the tensor."
    )
