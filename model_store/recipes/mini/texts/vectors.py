"""The teacher's vectors of texts, kept in parts.

Depends on a function that encodes texts. Invariant: no text is encoded twice; a part that was
written stays, so that encoding goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.files import atomic_path
from model_store.recipes.tiny.train import Report

Encode = Callable[[Sequence[str]], npt.NDArray[np.floating]]
Vectors = npt.NDArray[np.float32]
PART = 4096
"""Texts of a part."""


class TextVectors:
    """Vectors of texts in a folder, by the texts' digests."""

    def __init__(self, folder: Path) -> None:
        """Read all parts; the folder is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._at: dict[bytes, int] = {}
        self._parts: list[npt.NDArray[np.float16]] = []
        self._files = 0
        for path in sorted(folder.glob("part-*.npz")):
            with np.load(path) as part:
                self._append(part["keys"], part["vectors"])

    def add(self, texts: Iterable[str], encode: Encode, report: Report = lambda line: None) -> None:
        """Encode the texts that have no vector, those of one length together."""
        missing = [text for text in dict.fromkeys(texts) if _key(text) not in self._at]
        missing.sort(key=len)
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            keys = np.frombuffer(b"".join(map(_key, part)), np.uint8).reshape(len(part), -1)
            vectors = np.asarray(encode(part), np.float16)
            path = self._folder / f"part-{self._files:04d}.npz"
            with atomic_path(path) as draft, draft.open("wb") as file:
                np.savez(file, keys=keys, vectors=vectors)
            self._append(keys, vectors)
            report(f"encoded {start + len(part)} of {len(missing)} texts")

    def of(self, texts: Sequence[str]) -> Vectors:
        """`[texts, width]`; raises `KeyError` for a text without a vector."""
        rows = [self._at[_key(text)] for text in texts]
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        vectors: Vectors = self._parts[0][rows].astype(np.float32)
        return vectors

    def __contains__(self, text: str) -> bool:
        return _key(text) in self._at

    def _append(self, keys: npt.NDArray[np.uint8], vectors: npt.NDArray[np.float16]) -> None:
        for number, key in enumerate(keys, start=len(self._at)):
            self._at[key.tobytes()] = number
        self._parts.append(vectors)
        self._files += 1


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:12]
