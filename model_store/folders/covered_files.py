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

from collections.abc import Collection
from pathlib import Path

from model_store.families.sentence_transformers.modules import MODULES, read_modules
from model_store.json_files import refuse_pointer
from model_store.manifest import MANIFEST, CheckpointUnusable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_CHAINS = (("Transformer",), ("Transformer", "LogitScore"))
"""Modules of rerankers that sentence-transformers saved, in their order."""
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


def refuse_other_modules(name: str, folder: Path) -> None:
    """Raise `CheckpointUnusable` for modules of sentence-transformers that are no reranker known.

    Engines would leave such a module out, or pool by it.
    """
    files = read_modules(name, folder)
    if files is None or files.chain in _CHAINS:
        return
    for kind in ("Pooling", "Normalize", "Dense"):
        if kind in files.chain and not files.is_cross_encoder:
            raise CheckpointUnusable(
                f"{name}: {MODULES} has a {kind} layer: it is an embedding model, not a reranker."
            )
    raise CheckpointUnusable(
        f"{name}: {MODULES} lists {', '.join(files.chain)}, and rerankers are read that list"
        f" {' or '.join(', '.join(chain) for chain in _CHAINS)}."
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
