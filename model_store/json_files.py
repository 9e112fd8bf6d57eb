"""The JSON files of a checkpoint, read under a bound, with one sentence for each kind of failure.

Depends on files and bytes, not on their meaning. Invariant: the object that is read is the one that
transformers and vLLM read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_store.manifest import CheckpointUnusable

MAX_JSON_BYTES = 2**24
_LFS = b"version https://git-lfs.github.com/spec/"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json(name: str, folder: Path, file: str) -> dict[str, Any] | None:
    """The object of a file; None where there is no such file.

    Raises `CheckpointUnusable` that names the model and the file.
    """
    try:
        with (folder / file).open("rb") as opened:
            content = opened.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointUnusable(f"{name}: {file} cannot be read ({error.strerror}).") from None

    if len(content) > MAX_JSON_BYTES:
        raise CheckpointUnusable(f"{name}: {file} is larger than {MAX_JSON_BYTES} bytes.")
    refuse_pointer(name, file, content)
    if content.startswith(_BYTE_ORDER_MARK):
        raise CheckpointUnusable(
            f"{name}: {file} begins with a byte order mark, which transformers and vLLM refuse:"
            " save it as UTF-8 without one."
        )

    try:
        stated = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise CheckpointUnusable(f"{name}: {file} is not valid JSON in UTF-8.") from None
    if not isinstance(stated, dict):
        raise CheckpointUnusable(f"{name}: {file} is no JSON object.")
    return stated


def refuse_pointer(name: str, file: str, beginning: bytes) -> None:
    """Raise `CheckpointUnusable` where a file begins as a git-lfs pointer does."""
    if beginning.startswith(_LFS):
        raise CheckpointUnusable(
            f"{name}: {file} is a git-lfs pointer, not the file itself: run `git lfs pull` in the"
            " folder."
        )
