"""Text to token ids, literally: no text a user can type becomes a control token.

Knows the tokenizer file and nothing of prompts. Invariant: `encode` never returns the id of an added token, and `control`
returns nothing else. Hugging Face's own switches do not give this (`split_special_tokens` still parses added tokens that are
not flagged special, such as `<tool_call>`), so the added tokens are taken out of the pipeline that reads user text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from model_store.families.qwen2_tokenizer import has_parts, serialized_from_parts

TOKENIZER_FILE = "tokenizer.json"


class TokenizerMismatch(ValueError):
    """The tokenizer lacks a token that the family needs, or splits one that must be whole."""


class LiteralTokenizer:
    """A checkpoint's tokenizer with its added tokens set apart.

    Reads `tokenizer.json` (the `tokenizers` format). Normalisation, pre-tokenisation and merges are the checkpoint's own, so
    text without added tokens gets exactly the ids that its `AutoTokenizer` gives.
    """

    def __init__(self, serialized: str) -> None:
        try:
            spec = json.loads(serialized)
            self._controls: dict[str, int] = {token["content"]: token["id"] for token in spec["added_tokens"]}
            spec["added_tokens"] = []
            spec["post_processor"] = None
            self._text = Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # `tokenizers` raises no narrower kind
            raise TokenizerMismatch(f"{TOKENIZER_FILE} holds no readable tokenizer") from error

    @classmethod
    def load(cls, folder: Path) -> LiteralTokenizer:
        """Read `folder/tokenizer.json`, or `vocab.json` and `merges.txt`; raises `FileNotFoundError` where there are neither."""
        path = folder / TOKENIZER_FILE
        if not path.is_file() and has_parts(folder):
            return cls(serialized_from_parts(folder))
        return cls(path.read_text(encoding="utf-8"))

    @property
    def controls(self) -> dict[str, int]:
        """Every added token and its id."""
        return dict(self._controls)

    def control(self, token: str) -> int:
        """The id of one added token, such as `<|im_end|>`."""
        try:
            return self._controls[token]
        except KeyError:
            raise TokenizerMismatch(f"the tokenizer has no control token {token}") from None

    def label(self, word: str) -> int:
        """The id of a label word; raises `TokenizerMismatch` unless it is exactly one token."""
        ids = self.encode([word])[0]
        if len(ids) != 1:
            raise TokenizerMismatch(f"the label {word!r} is {len(ids)} tokens, not one")
        return ids[0]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in one parallel batch; an empty text has no ids."""
        return [encoding.ids for encoding in self._text.encode_batch_fast(list(texts), add_special_tokens=False)]

    def cut(self, text: str, limit: int) -> str:
        """The longest beginning of `text`, in whole tokens of `text`, whose own encoding has at most `limit` ids."""
        offsets = self._text.encode(text, add_special_tokens=False).offsets
        while limit > 0:
            head = text[: offsets[limit - 1][1]] if limit <= len(offsets) else text
            excess = len(self.encode([head])[0]) - limit
            if excess <= 0:
                return head
            limit -= excess
        return ""
