"""The tokenizer of a folder as transformers opens it, against this service's reading of its files.

transformers applies settings of `tokenizer_config.json` over `tokenizer.json`, by rules of each
class of tokenizers and of its own version: lower case, accents, types of tokens, a first token.
Depends on transformers, which is imported at the call. Invariant: a folder of which the two read
ordinary texts in different ways is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.families.family import Family
from model_store.families.prompt import Prompt
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import CheckpointUnusable

_PAIRS = (
    ("How do I sort a List?", "Call sort() or sorted(): 12,345 ways, isn't it."),
    ("\u00c0 la carte, STRASSE", "Die Gr\u00f6\u00dfe von \u4e1c\u4eac"),
)
"""Case, accents, digits, punctuation and ideographs: the settings that tokenizers' classes have."""


def refuse_other_texts(name: str, folder: Path, literal: LiteralTokenizer) -> None:
    """Raise `CheckpointUnusable` where `AutoTokenizer` gives texts other ids than `literal`."""
    tokenizer = _opened(name, folder)
    texts = [text for pair in _PAIRS for text in pair]
    for text, ids in zip(texts, literal.encode(texts), strict=True):
        if _encoded(name, tokenizer, text, add_special_tokens=False)["input_ids"] != ids:
            raise _refusal(name, tokenizer)


def refuse_other_pairs(name: str, folder: Path, family: Family, *, typed: bool) -> None:
    """Raise `CheckpointUnusable` where `AutoTokenizer(query, document)` gives other ids than a
    family, or other types for a network that is `typed`."""
    tokenizer = _opened(name, folder)
    for query, document in _PAIRS:
        (pair,) = family.render((), (query,), [(document,)])
        assert isinstance(pair, Prompt)
        encoded = _encoded(name, tokenizer, query, document)
        ids: list[int] = encoded["input_ids"]
        if list(pair.ids) != ids:
            raise _refusal(name, tokenizer)

        types = encoded.get("token_type_ids") or [0] * len(ids)
        if typed and list(pair.types or [0] * len(ids)) != types:
            raise CheckpointUnusable(
                f"{name}: transformers gives the two texts of a pair other types of tokens than"
                " tokenizer.json says: state model_input_names in tokenizer_config.json, with"
                " token_type_ids if the model was trained with them."
            )


def _refusal(name: str, tokenizer: object) -> CheckpointUnusable:
    return CheckpointUnusable(
        f"{name}: transformers reads texts in another way than tokenizer.json alone says, since"
        f" tokenizer_config.json has other settings ({type(tokenizer).__name__}): save the"
        " tokenizer anew with save_pretrained."
    )


def _opened(name: str, folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for a file that it cannot read
        raise _broken(name, error) from None


def _encoded(name: str, tokenizer: Any, *texts: str, **options: bool) -> Any:
    try:
        return tokenizer(*texts, **options)
    except Exception as error:  # `tokenizers` raises no narrower kind
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> CheckpointUnusable:
    return CheckpointUnusable(
        f"{name}: transformers cannot read texts with its tokenizer_config.json and tokenizer.json"
        f" ({type(error).__name__})."
    )
