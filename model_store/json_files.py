"""The JSON and text files of a checkpoint, read under a bound, with one sentence for each failure.

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
    content = _read(name, folder, file)
    if content is None:
        return None

    stated = _parsed(name, file, content)
    if not isinstance(stated, dict):
        raise CheckpointUnusable(f"{name}: {file} is no JSON object.")
    return stated


def read_json_list(name: str, folder: Path, file: str) -> list[Any] | None:
    """The list of a file; None where there is no such file.

    Raises `CheckpointUnusable` that names the model and the file.
    """
    content = _read(name, folder, file)
    if content is None:
        return None

    stated = _parsed(name, file, content)
    if not isinstance(stated, list):
        raise CheckpointUnusable(f"{name}: {file} is no JSON list.")
    return stated


def read_text(name: str, folder: Path, file: str) -> str | None:
    """The text of a file in UTF-8; None where there is no such file.

    Raises `CheckpointUnusable` that names the model and the file.
    """
    content = _read(name, folder, file)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        raise CheckpointUnusable(f"{name}: {file} is not valid UTF-8.") from None


def refuse_pointer(name: str, file: str, beginning: bytes) -> None:
    """Raise `CheckpointUnusable` where a file begins as a git-lfs pointer does."""
    if beginning.startswith(_LFS):
        raise CheckpointUnusable(
            f"{name}: {file} is a git-lfs pointer, not the file itself: run `git lfs pull` in the"
            " folder."
        )


def _read(name: str, folder: Path, file: str) -> bytes | None:
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

    return content


def _parsed(name: str, file: str, content: bytes) -> object:
    try:
        stated: object = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise CheckpointUnusable(f"{name}: {file} is not valid JSON in UTF-8.") from None
    return stated
