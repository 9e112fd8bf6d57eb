"""Small folders with manifests, in the shape of checkpoints, and storages for them."""

from __future__ import annotations

import uuid
from pathlib import Path

from model_store.manifest import Manifest, digest_files, write_manifest

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "golden/a.png": b"",
    "tokenizer.json": b"[1]",
}


def make_folder(folder: Path, seed: int = 0, name: str = "small", **changes: object) -> Path:
    for file, content in FILES.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    described = {
        "name": name,
        "family": "gmr",
        "template": "code",
        "default_instruction": "find",
        "max_tokens": 3200,
        "pixels": {"min_pixels": 1, "max_pixels": 2},
        "files": digest_files(folder, FILES),
        "lineage": {"seed": seed},
    }
    write_manifest(folder, Manifest.model_validate(described | changes))
    return folder


def fresh_memory() -> str:
    return f"memory://{uuid.uuid4().hex}"
