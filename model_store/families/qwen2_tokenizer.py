"""Qwen2's tokenizer from `vocab.json` and `merges.txt`, for a folder without `tokenizer.json`.

Depends on the two files and on the list of added tokens in `tokenizer_config.json`, or in the older
`added_tokens.json`. Invariant: ids equal those of transformers' `Qwen2Tokenizer` for the same
folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY, MERGES = "vocab.json", "merges.txt"
_OTHER_FORMS = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "vocab.txt")
_MAX_BYTES = 2**26

_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PIPELINE: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": _PIECES},
                "behavior": "Isolated",
                "invert": False,
            },
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
        ],
    },
    "post_processor": None,
    "decoder": {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    },
}


def has_parts(folder: Path) -> bool:
    """True for a folder with a tokenizer in two files."""
    return (folder / VOCABULARY).is_file() and (folder / MERGES).is_file()


def missing_parts(folder: Path) -> str:
    """A clause on the files that a folder without a readable tokenizer lacks."""
    for present, absent in ((VOCABULARY, MERGES), (MERGES, VOCABULARY)):
        if (folder / present).is_file():
            return f"there is no tokenizer.json, and {present} lacks {absent} beside it"

    for other in _OTHER_FORMS:
        if (folder / other).is_file():
            return (
                f"there is no tokenizer.json, and {other} alone is not read: transformers'"
                " AutoTokenizer of this folder saves one"
            )
    return f"there is no tokenizer.json, and no {VOCABULARY} with {MERGES}"


def serialized_from_parts(folder: Path) -> str:
    """The text of a `tokenizer.json` that is equal to the two files.

    Raises `OSError` or `ValueError` where one cannot be read.
    """
    vocabulary = json.loads(_read(folder / VOCABULARY))
    merges: list[str] = []
    for line in _read(folder / MERGES).split("\n"):
        if line.strip() and not line.startswith("#version"):
            merges.append(line)

    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }
    return json.dumps(_PIPELINE | {"added_tokens": _added_tokens(folder), "model": model})


def _added_tokens(folder: Path) -> list[dict[str, Any]]:
    defaults = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    listed = _object(folder / "tokenizer_config.json").get("added_tokens_decoder")
    if listed:
        return [defaults | dict(token) | {"id": int(number)} for number, token in listed.items()]

    older = _object(folder / "added_tokens.json")
    return [defaults | {"content": text, "id": int(number)} for text, number in older.items()]


def _object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is no file."""
    if not path.is_file():
        return {}

    content = json.loads(_read(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no JSON object")  # a value of a file, not of the program
    return content


def _read(path: Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.name} is larger than {_MAX_BYTES} bytes")
    return path.read_text(encoding="utf-8")
