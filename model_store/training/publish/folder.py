"""A published folder: built as a draft beside its final path, its manifest last, then renamed.

Depends on files, not on networks. Invariant: whenever the process ends, the final path is complete
or absent, and a draft does not resolve: it has a `golden.json` from the start, and a manifest only
at the end.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint
from model_store.families.qwen2_tokenizer import has_parts, serialized_from_parts
from model_store.families.tokens import TOKENIZER_FILE
from model_store.folders.chat_template import CHAT_TEMPLATE
from model_store.folders.image_processor import PREPROCESSOR, image_settings
from model_store.folders.plain import refuse_quantised
from model_store.golden import GOLDEN
from model_store.json_files import read_json
from model_store.manifest import MANIFEST, Manifest, digest_files, write_manifest
from model_store.training.publish.pairs import PublishRefused

CARD = "MODEL_CARD.md"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_READ_BY_ENGINES = (
    TOKENIZER_FILE,
    _TOKENIZER_CONFIG,
    CHAT_TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "video_preprocessor_config.json",
)


@contextmanager
def draft_of(output: Path) -> Iterator[Path]:
    """A folder beside `output` that is renamed to it at the end; raises `PublishRefused` where
    `output` exists."""
    if output.exists():
        raise PublishRefused(
            f"{output.name} is there already: a published folder is never changed."
        )

    draft = output.with_name(f".{output.name}.{secrets.token_hex(4)}.draft")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        (draft / GOLDEN).touch()
        yield draft
        if not (draft / MANIFEST).exists():
            raise PublishRefused(f"{output.name} was not finished.")
        draft.rename(output)
    except OSError as error:
        raise PublishRefused(
            f"{output.name} cannot be written ({error.strerror or type(error).__name__})."
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_unless_room(folder: Path, needed: int) -> None:
    """Raise `PublishRefused` where the disk of a folder has less than `needed` bytes free."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PublishRefused(
            f"About {needed / 1e9:.1f} GB are needed where {free / 1e9:.1f} GB are free."
        )


def refuse_unless_servable(base: Checkpoint) -> None:
    """Raise `PublishRefused` for a base without the files that a served folder needs.

    Raises `CheckpointUnusable` where its weights are quantised or a file cannot be read.
    """
    refuse_quantised(
        base.name,
        base.folder,
        "and an adapter is merged into whole ones: give the checkpoint that they were made from",
    )

    if not (base.folder / TOKENIZER_FILE).is_file() and not has_parts(base.folder):
        raise PublishRefused(
            f"{base.name} has no {TOKENIZER_FILE}, and no vocab.json with merges.txt: what is made"
            " of it could not be served."
        )
    if not (base.folder / _TOKENIZER_CONFIG).is_file():
        raise PublishRefused(
            f"{base.name} has no {_TOKENIZER_CONFIG}: what is made of it could not be served."
        )

    # engines load a processor for images, which needs a chat template
    needed = base.family.images is not None
    if needed and not (base.folder / CHAT_TEMPLATE).is_file() and not _template_in_json(base):
        raise PublishRefused(
            f"{base.name} has no chat template: what is made of it could not be served. Add"
            f" the {CHAT_TEMPLATE} of {base.architecture.name} to it."
        )


def copy_reading(base: Checkpoint, folder: Path) -> None:
    """Copy the files by which engines read texts and images, with the base's own pixel bounds.

    The tokenizer becomes one file, and the chat template a file of its own: every library finds
    them there.
    """
    for name in _READ_BY_ENGINES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)

    if not (folder / TOKENIZER_FILE).exists():
        (folder / TOKENIZER_FILE).write_text(serialized_from_parts(base.folder), encoding="utf-8")
    template = _template_in_json(base)
    if template and not (folder / CHAT_TEMPLATE).exists():
        (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")

    tower, bounds = base.architecture.vision, base.manifest.pixels
    if tower is None or bounds is None:
        return

    found = image_settings(base.name, base.folder)
    stated = dict(tower.preprocessor) if found is None else dict(found[1])
    stated.pop("size", None)  # it means the same as the bounds, and has precedence
    stated |= bounds.model_dump()
    (folder / PREPROCESSOR).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")


def _template_in_json(base: Checkpoint) -> str:
    """The chat template in the tokenizer's settings or in the processor's older file; empty where
    neither has one."""
    for name in (_TOKENIZER_CONFIG, "chat_template.json"):
        template = (read_json(base.name, base.folder, name) or {}).get("chat_template")
        if template is not None and not isinstance(template, str):
            raise PublishRefused(f"{base.name}: chat_template of {name} is not one text.")
        if template:
            return template
    return ""


def seal(
    folder: Path,
    *,
    name: str,
    described: Mapping[str, Any],
    card: str,
    lineage: Mapping[str, Any],
    base: str | None = None,
    files: Iterable[str] | None = None,
) -> Manifest:
    """Write the card, then the manifest of `files`, or of all files in the folder; `described` are
    the manifest's other fields."""
    (folder / CARD).write_text(card, encoding="utf-8")

    for weights in folder.glob("*.safetensors"):  # made readable by their owner only
        weights.chmod((folder / CARD).stat().st_mode)

    listed = _files(folder) if files is None else [*files, CARD]
    fields = {
        **described,
        "name": name,
        "base": base,
        "lineage": dict(lineage),
        "files": digest_files(folder, listed),
    }
    manifest = Manifest.model_validate(fields)
    write_manifest(folder, manifest)
    return manifest


def described_as(manifest: Manifest) -> dict[str, Any]:
    """The fields of a manifest that describe how a pair is read, for another manifest."""
    return manifest.model_dump(
        include={
            "family",
            "template",
            "default_instruction",
            "max_tokens",
            "pixels",
            "read_out",
            "transform",
        }
    )


def _files(folder: Path) -> list[str]:
    found = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    return [name for name in found if name != MANIFEST]
