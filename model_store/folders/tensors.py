"""The tensors of safetensors files, as the files' headers describe them.

Depends on the format of the files, not on a network. Invariant: a file whose tensors are returned
has exactly the bytes that its header describes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.json_files import refuse_pointer
from model_store.manifest import CheckpointUnusable

_MAX_HEADER_BYTES = 100_000_000  # safetensors' own bound
_POINTER_BYTES = 64  # enough of a file to recognise a git-lfs pointer
_LENGTH_BYTES = 8  # of the header's length, at the beginning of a file
_CHUNK = 2**22


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a header describes it. Its bytes in the file are those from `start` to `end`."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def tensors_of_file(name: str, folder: Path, file: str) -> list[StoredTensor]:
    """The tensors of one safetensors file.

    A file has eight bytes with its header's length, the header in JSON, then the tensors' bytes.
    Raises `CheckpointUnusable` for a file of another form, or one that is cut off.
    """
    path = folder / file
    try:
        with path.open("rb") as opened:
            beginning = opened.read(_POINTER_BYTES)
            refuse_pointer(name, file, beginning)
            (length,) = struct.unpack("<Q", beginning[:_LENGTH_BYTES])
            if length > _MAX_HEADER_BYTES:
                raise ValueError
            opened.seek(_LENGTH_BYTES)
            header = json.loads(opened.read(length))

        header.pop("__metadata__", None)
        base = _LENGTH_BYTES + length
        tensors = [_tensor(file, tensor, stated, base) for tensor, stated in header.items()]
    except OSError as error:
        raise CheckpointUnusable(f"{name}: {file} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError):
        raise CheckpointUnusable(f"{name}: {file} is no safetensors file, or is damaged.") from None

    expected_size = max((tensor.end for tensor in tensors), default=base)
    size = path.stat().st_size
    if size != expected_size:
        raise CheckpointUnusable(
            f"{name}: {file} has {size} bytes where its header says {expected_size}: it is cut off"
            " or damaged."
        )
    return tensors


def same_bytes(folder: Path, left: StoredTensor, right: StoredTensor) -> bool:
    """True where two tensors of as many bytes are equal to the byte."""
    with (folder / left.file).open("rb") as one, (folder / right.file).open("rb") as two:
        one.seek(left.start)
        two.seek(right.start)
        remaining = left.end - left.start
        while remaining > 0:
            length = min(remaining, _CHUNK)
            if one.read(length) != two.read(length):
                return False
            remaining -= length
    return True


def _tensor(file: str, name: str, stated: Mapping[str, Any], base: int) -> StoredTensor:
    start, end = (int(offset) + base for offset in stated["data_offsets"])
    shape = tuple(map(int, stated["shape"]))
    return StoredTensor(file, name, str(stated["dtype"]), shape, start, end)
