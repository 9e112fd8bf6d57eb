"""The files of a checkpoint's folder that loaders read by themselves: the digest covers each.

Depends on names of files. Invariant: in a folder that passes, the digest covers every file that
transformers, tokenizers or vLLM read, and no file is applied by one of them and not by another.

With code of the folder's own switched off, loaders read these files of a folder:
`config.json` and the files it names (`config.4.0.0.json`), `generation_config.json`,
`adapter_config.json` with the adapter's weights, `*.safetensors` with their index,
`tokenizer*.json`, `vocab.*`, `merges.txt`, `*.model`, `added_tokens.json`,
`special_tokens_map.json`, `chat_template.*`, `additional_chat_templates/*.jinja`,
`preprocessor_config.json`, `processor_config.json`, `video_preprocessor_config.json`,
`*quant*_config.json`, and of sentence-transformers `modules.json`, `sentence_*_config.json` and the
folders that it names. All end in one of `_READ`. Pickled weights (`*.bin`, `*.pt`) and code
(`*.py`) are never opened: both loaders are configured so.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from model_store.json_files import MAX_JSON_BYTES, refuse_pointer
from model_store.manifest import MANIFEST, CheckpointUnusable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MODULES = "modules.json"
_READ = frozenset((".json", ".safetensors", ".jinja", ".txt", ".model", ".tiktoken", ".gguf"))
_POINTER_BYTES = 64


def files_read(folder: Path) -> list[str]:
    """The files that a loader could read, in the folder and below, as paths inside it.

    No loader reads hidden files.
    """
    files = set()
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix in _READ and path.is_file() and not hidden:
            files.add(inside.as_posix())
    return sorted(files - {MANIFEST})


def refuse_adapter(name: str, folder: Path) -> None:
    """Raise `CheckpointUnusable` for an adapter alone, and for one beside weights.

    transformers would apply the latter where peft is installed, vLLM never.
    """
    if not (folder / ADAPTER_CONFIG).exists():
        return

    if not (folder / "config.json").exists():
        raise CheckpointUnusable(
            f"{name} is a LoRA adapter: serve its base and name it in RERANK_ADAPTERS, or merge it"
            " with `gmr publish`."
        )
    raise CheckpointUnusable(
        f"{name}: {ADAPTER_CONFIG} lies beside the weights, and some loaders would apply that"
        " adapter: merge it with `gmr publish`, or move it to a folder of its own and name that in"
        " RERANK_ADAPTERS."
    )


def refuse_unlisted(name: str, folder: Path, listed: Collection[str]) -> None:
    """Raise `CheckpointUnusable` for a file that loaders could read and no manifest lists."""
    for file in files_read(folder):
        if file not in listed:
            raise CheckpointUnusable(
                f"{name}: {file} is not in its {MANIFEST}, so that nothing covers it, and loaders"
                " could read it: remove it."
            )


def refuse_pooling(name: str, folder: Path) -> None:
    """Raise `CheckpointUnusable` for an embedding model of sentence-transformers.

    vLLM would pool by its `modules.json`.
    """
    try:
        with (folder / _MODULES).open("rb") as file:
            modules = json.loads(file.read(MAX_JSON_BYTES))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise CheckpointUnusable(f"{name}: {_MODULES} cannot be read.") from None

    for kind in ("Pooling", "Normalize", "Dense"):
        if kind in kinds:
            raise CheckpointUnusable(
                f"{name}: {_MODULES} has a {kind} layer: it is an embedding model, not a reranker."
            )


def refuse_pointers(name: str, folder: Path, files: Collection[str]) -> None:
    """Raise `CheckpointUnusable` for a file that is still the pointer of git-lfs to it."""
    for file in files:
        try:
            with (folder / file).open("rb") as opened:
                beginning = opened.read(_POINTER_BYTES)
        except OSError as error:
            raise CheckpointUnusable(f"{name}: {file} cannot be read ({error.strerror}).") from None
        refuse_pointer(name, file, beginning)
