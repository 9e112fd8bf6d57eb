"""A folder that becomes visible at once: built beside its place, its manifest last, then renamed.

Knows files, nothing of networks. Invariant: whatever ends the process, what is at the folder's place is complete or nothing, and
what is beside it does not resolve: its `golden.json` is there from the first moment, its manifest not before the last.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store.families.qwen2_5_vl import DEVIATION, MEAN
from model_store.golden import GOLDEN
from model_store.manifest import MANIFEST, Manifest, digest_files, write_manifest
from model_store.registry import PREPROCESSOR, Checkpoint
from model_store.training.publish.pairs import PublishRefused

CARD = "MODEL_CARD.md"
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    # Readers differ in what they take a processor for that does not say these.
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN.tolist(),
    "image_std": DEVIATION.tolist(),
    "do_convert_rgb": True,
}
"""What `preprocessor_config.json` says beside its pixel bounds."""
_READ_BY_ENGINES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "video_preprocessor_config.json",
)


@contextmanager
def draft_of(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its place at the end; raises `PublishRefused` where there is something already."""
    if output.exists():
        raise PublishRefused(f"{output.name} is there already: a published folder is never changed.")
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
        raise PublishRefused(f"{output.name} cannot be written ({error.strerror or type(error).__name__}).") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_unless_room(place: Path, needed: int) -> None:
    """Raises `PublishRefused` where the disk has less than `needed` bytes free."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise PublishRefused(f"About {needed / 1e9:.1f} GB are needed where {free / 1e9:.1f} GB are free.")


def refuse_unless_servable(base: Checkpoint) -> None:
    """Raises `PublishRefused` where a base lacks a file that a served folder must have, before anything is computed."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (base.folder / name).is_file():
            raise PublishRefused(f"{base.name} has no {name}: what is made of it could not be served.")
    if not _stated(base, "tokenizer_config.json").get("chat_template") and not any(
        (base.folder / f"chat_template.{kind}").is_file() for kind in ("jinja", "json")
    ):
        raise PublishRefused(f"{base.name} has no chat template: what is made of it could not be served.")


def copy_reading(base: Checkpoint, folder: Path) -> None:
    """Copy what engines read a text and a picture by, with the pixel bounds that the base is served with."""
    for name in _READ_BY_ENGINES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
    stated = _stated(base, PREPROCESSOR) if (base.folder / PREPROCESSOR).is_file() else dict(PROCESSOR)
    stated.pop("size", None)  # another way to say the same, and the one that would win
    stated |= base.manifest.pixels.model_dump()
    (folder / PREPROCESSOR).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")


def _stated(base: Checkpoint, name: str) -> dict[str, Any]:
    try:
        found = json.loads((base.folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise PublishRefused(f"{base.name}: {name} cannot be read.")
    return found


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
    """Write the card, then the manifest of `files`, or of all that lie in the folder. `described` has its other fields."""
    (folder / CARD).write_text(card, encoding="utf-8")
    for weights in folder.glob("*.safetensors"):  # their writer leaves them to their owner alone
        weights.chmod((folder / CARD).stat().st_mode)
    listed = _files(folder) if files is None else [*files, CARD]
    fields = {**described, "name": name, "base": base, "lineage": dict(lineage), "files": digest_files(folder, listed)}
    manifest = Manifest.model_validate(fields)
    write_manifest(folder, manifest)
    return manifest


def described_as(manifest: Manifest) -> dict[str, Any]:
    """How a pair is read, as another checkpoint's manifest has it."""
    return manifest.model_dump(include={"family", "template", "default_instruction", "max_tokens", "pixels"})


def _files(folder: Path) -> list[str]:
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if name != MANIFEST]
