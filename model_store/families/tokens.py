"""Literal tokenization: no text that a user can type becomes a control token.

Depends on the tokenizer file, not on prompts. Invariant: `encode` never returns the id of an added
token, and `control` returns nothing else. Three kinds of added token are text and no control
tokens: the unknown token, which stands for characters without a token, runs of blanks, and pieces
of the model's own vocabulary that are not flagged special, such as Gemma's `<table>`. Hugging
Face's own switches do not guarantee this (`split_special_tokens` still parses added tokens that are
not flagged special, such as `<tool_call>`), so the added tokens are taken out of the pipeline that
reads user text, and out of its vocabulary, where some models would find them as pieces of a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex
from tokenizers import Encoding, Tokenizer

from model_store.families.graphemes import boundary
from model_store.families.qwen2_tokenizer import has_parts, serialized_from_parts
from model_store.families.vocabulary import is_text, size_of, take_out

TOKENIZER_FILE = "tokenizer.json"

BYTES_A_TOKEN = 6
"""Bytes of UTF-8 that are read at first for each token that a text may have. Nearly all texts need
fewer, so that most are read once."""
_SAMPLE = 1_024
MARGIN = 64
"""Tokens that a beginning must have beyond the limit. The text after a beginning can change its
last tokens only where it ends inside a word, and then few of them."""
_WORD_END = regex.compile(r"(?r)(?<=\p{L})(?=[\s\p{P}\p{S}])(?!['\u2019])")
"""Matches where pre-tokenizers of the GPT-2 family end a piece, whatever comes after it."""
_SINGLE_STEPS = 3
"""Attempts at a cut that go back by one token each; later steps double."""

Parse = Callable[[str], Tokenizer]


class TokenizerMismatch(ValueError):
    """The tokenizer lacks a token that the family needs, or splits one that must be whole."""


class LiteralTokenizer:
    """A checkpoint's tokenizer with its control tokens set apart.

    Reads `tokenizer.json` (the `tokenizers` format). Normalisation, pre-tokenisation and merges are
    the checkpoint's own, so text without control tokens gets exactly the ids that its
    `AutoTokenizer` gives.

    `bytes_a_token` decides how much of a long text is read at first; `parse` makes the pipeline
    that reads user text. Raises `TokenizerMismatch` at construction for a file that is unreadable.
    """

    def __init__(
        self,
        serialized: str,
        *,
        bytes_a_token: int = BYTES_A_TOKEN,
        parse: Parse = Tokenizer.from_str,
    ) -> None:
        self._bytes_a_token = bytes_a_token
        try:
            spec = json.loads(serialized)
            self._controls: dict[str, int] = {}
            controls = []
            for token in spec["added_tokens"]:
                if not is_text(token, spec["model"]["vocab"]):
                    controls.append(dict(token))
                    self._controls[token["content"]] = token["id"]
            self.control_entries: Sequence[Mapping[str, Any]] = controls
            """The control tokens as `tokenizer.json` has them, with their flags."""

            self._size = size_of(spec)
            self.post_processor: Mapping[str, Any] | None = spec["post_processor"]
            self.pre_tokenizer: Mapping[str, Any] | None = spec.get("pre_tokenizer")
            self.normalizer: Mapping[str, Any] | None = spec.get("normalizer")
            take_out(spec, self._controls)
            # some checkpoints were saved with the last call's truncation and padding
            spec["post_processor"] = spec["truncation"] = spec["padding"] = None
            self._pipeline = parse(json.dumps(spec))
        except Exception as error:  # `tokenizers` raises no narrower kind
            raise TokenizerMismatch(f"{TOKENIZER_FILE} holds no readable tokenizer") from error

    @classmethod
    def load(cls, folder: Path) -> LiteralTokenizer:
        """Read `folder/tokenizer.json`, or `vocab.json` and `merges.txt`.

        Raises `FileNotFoundError` where neither exists.
        """
        path = folder / TOKENIZER_FILE
        if not path.is_file() and has_parts(folder):
            return cls(serialized_from_parts(folder))
        return cls(path.read_text(encoding="utf-8"))

    @property
    def size(self) -> int:
        """One more than the largest id of any token."""
        return self._size

    @property
    def controls(self) -> dict[str, int]:
        """Every added token and its id, without those that are text."""
        return dict(self._controls)

    def control(self, token: str) -> int:
        """The id of one control token, such as `<|im_end|>`."""
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

    def decode(self, ids: Sequence[int]) -> str:
        """A text that shows ids to people: added tokens by their names, all others decoded."""
        names = {token_id: token for token, token_id in self._controls.items()}
        shown: list[str] = []
        run: list[int] = []
        for token_id in ids:
            if token_id not in names:
                run.append(token_id)
                continue
            shown += [self._pipeline.decode(run), names[token_id]]
            run = []
        return "".join([*shown, self._pipeline.decode(run)])

    def token(self, number: int) -> str | None:
        """The vocabulary's name of an id; None where it has none."""
        names = {token_id: token for token, token_id in self._controls.items()}
        return names.get(number) or self._pipeline.id_to_token(number) or None

    def pieces(self, text: str) -> list[str]:
        """A text, normalized, as its pre-tokenizer splits it; whole where it has none."""
        splitter, normal = self._pipeline.pre_tokenizer, self.normalized(text)
        return [piece for piece, _ in splitter.pre_tokenize_str(normal)] if splitter else [normal]

    def normalized(self, text: str) -> str:
        """A text as its pre-tokenizer gets it."""
        normalizer = self._pipeline.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, in one parallel batch; an empty text has no ids."""
        encodings = self._pipeline.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_within(self, texts: Sequence[str], limit: int) -> list[list[int] | None]:
        """Ids of each text, as `encode` gives them; None where a text has more than `limit`.

        Of a long text only a beginning is read: about `bytes_a_token * limit` bytes, unless its
        tokens are longer than that.
        """
        found: list[list[int] | None] = [None] * len(texts)
        sizes = [self._first_size(text, limit) for text in texts]
        unread = list(range(len(texts)))
        while unread:
            ends = [_reading_end(texts[index], sizes[index]) for index in unread]
            beginnings = [texts[index][:end] for index, end in zip(unread, ends, strict=True)]
            too_short: list[int] = []
            for index, end, ids in zip(unread, ends, self.encode(beginnings), strict=True):
                if end == len(texts[index]):
                    found[index] = ids if len(ids) <= limit else None
                elif len(ids) <= limit + MARGIN:
                    too_short.append(index)
                    sizes[index] *= 2
            unread = too_short
        return found

    def cut(self, text: str, limit: int) -> str:
        """The beginning of `text` that `fit` finds for a text without neighbours."""
        return self.fit("", text, "", limit)[0]

    def fit(self, before: str, text: str, after: str, limit: int) -> tuple[str, list[int]]:
        """The longest beginning of `text` with which `before + text + after` has `limit` ids.

        Returns it with the ids of all three. It ends where a token of `before + text` ends, or
        where the grapheme cluster begins in which that token ends; so it has more than `limit`
        ids less those of one cluster. It is empty where nothing fits, and then there may be more
        than `limit` ids. Only as much of `text` is read as could fit.
        """
        joined = before + text
        beginning, read = self._beginning(joined, limit)
        if read == len(joined):
            (ids,) = self.encode([joined + after])
            if len(ids) <= limit:
                return text, ids

        tail = len(self.encode([after])[0]) if after else 0
        kept, steps = min(max(limit - tail, 0), len(beginning)), 0
        while (end := _end(beginning, kept, read)) > len(before):
            cut = max(boundary(joined, end), len(before))
            (ids,) = self.encode([joined[:cut] + after])
            if len(ids) <= limit:
                return joined[len(before) : cut], ids

            # The text after the cut had changed the ids. That is rare; longer steps bound the
            # number of attempts for tokenizers with which it is not.
            steps += 1
            kept = max(0, kept - (1 << max(0, steps - _SINGLE_STEPS)))
            while kept > 0 and _end(beginning, kept, read) >= cut:
                kept -= 1
        return "", self.encode([before + after])[0]

    def _beginning(self, text: str, limit: int) -> tuple[Encoding, int]:
        """The encoding of a beginning of `text` that has more than `limit` ids, or of all of it.

        Returns it with the beginning's length.
        """
        size = self._first_size(text, limit)
        while True:
            end = _reading_end(text, size)
            # a batch of one, because batches are encoded without Python's interpreter lock
            (encoding,) = self._pipeline.encode_batch([text[:end]], add_special_tokens=False)
            if end == len(text) or len(encoding) > limit + MARGIN:
                return encoding, end
            size *= 2

    def _first_size(self, text: str, limit: int) -> int:
        """Characters of `text` to read at first, by the number of bytes that a sample takes."""
        size = self._bytes_a_token * (max(limit, 0) + MARGIN)
        if text.isascii():
            return size

        sample = text[:_SAMPLE]
        return size * len(sample) // len(sample.encode("utf-8", "surrogatepass"))


def _reading_end(text: str, size: int) -> int:
    """The end of a word of `text` near `size` characters, or `size` where there is none."""
    if size >= len(text):
        return len(text)
    word_end = _WORD_END.search(text, size // 2, size)
    return word_end.start() if word_end else size


def _end(encoding: Encoding, count: int, read: int) -> int:
    """The last index in a text of `read` characters that the first `count` tokens reach.

    It is where the next token begins. That may be a character of which the `count` tokens hold some
    bytes, and characters between two tokens were composed with the one before them.
    """
    if count >= len(encoding):
        return read
    characters = encoding.token_to_chars(count)
    assert characters is not None  # only tokens without text, such as a post-processor's, have none
    return characters[0]
