"""GME-Qwen2-VL, the retriever of the paper: prompts, and vectors by transformers.

Depends on the tokens and patches of Qwen2-VL and Qwen2.5-VL, not on an index. The prompt is a chat
turn that ends in `<|endoftext|>`, whose hidden state in the last layer, normalised to length 1, is
the vector; a query's instruction is the system's text. Invariant: token ids are built here, so no
text becomes a control token. A text that exceeds `MAX_TOKENS` is cut at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoModel

from model_store.errors import DataError
from model_store.families.images import PictureUnreadable, load_picture
from model_store.families.prompt import Image
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.networks.qwen2_5_vl_images import CELL, grid, image_tokens, patches
from model_store.retrieval.embedder import Content, Query
from model_store.retrieval.found import Vectors

MAX_TOKENS = 1_800
MIN_PIXELS, MAX_PIXELS = 4 * CELL**2, 1_280 * CELL**2
DEFAULT_INSTRUCTION = "You are a helpful assistant."
PAIRS_A_PASS = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """A content as model input: token ids with one placeholder for its picture, and the picture,
    `[height, width, 3]`."""

    ids: list[int]
    picture: npt.NDArray[np.uint8] | None


class Reader:
    """Makes prompts."""

    def __init__(self, folder: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        """Raises `DataError` where the folder's tokenizer lacks what the prompt needs."""
        self.max_pixels = max_pixels
        try:
            self._tokenizer = LiteralTokenizer.load(folder)
            control = self._tokenizer.control
            self._start, self._end = control("<|im_start|>"), control("<|im_end|>")
            self._last = control("<|endoftext|>")
            self._vision = control("<|vision_start|>"), control("<|vision_end|>")
            self.image_pad = control("<|image_pad|>")
        except (OSError, TokenizerMismatch) as error:
            raise DataError(f"{folder}: this is no GME model ({error}).") from None

    def read(self, content: Content, instruction: str | None, location: str) -> Reading:
        """The prompt of a content; raises `DataError`, which names `location`, for a picture that
        cannot be read."""
        picture = self._picture(content, location)
        image_ids = 0 if picture is None else image_tokens(_shape(picture)) - 1
        start, end = self._around(instruction, pictured=picture is not None)
        room = MAX_TOKENS - image_ids - len(start) - len(end)
        before = "" if picture is not None else "user\n"
        _, ids = self._tokenizer.fit(before, content.text or "", "", room)
        if len(ids) > room:
            raise DataError(
                f"{location}: without any text it takes more than {MAX_TOKENS} tokens: the"
                " instruction is too long."
            )

        return Reading([*start, *ids, *end], picture)

    def _picture(self, content: Content, location: str) -> npt.NDArray[np.uint8] | None:
        if content.image is None:
            return None

        try:
            loaded = load_picture(
                content.image, cell=CELL, min_pixels=MIN_PIXELS, max_pixels=self.max_pixels
            )
        except PictureUnreadable as error:
            name = f"the image {content.image}" if isinstance(content.image, Path) else "the image"
            raise DataError(f"{location}: {name}: {error}.") from None
        return np.asarray(loaded)

    def _around(self, instruction: str | None, *, pictured: bool) -> tuple[list[int], list[int]]:
        """The ids before and after the user's text.

        The text is encoded together with the `user` line, unless a picture is between them.
        """
        text = instruction or DEFAULT_INSTRUCTION
        sentence = text if text.endswith((".", "!", "?")) else f"{text}."
        system = f"system\n{sentence}"
        system_ids, line, user, answer = self._tokenizer.encode(
            [system, "\n", "user\n", "assistant\n"]
        )
        shown = [*user, self._vision[0], self.image_pad, self._vision[1]] if pictured else []
        before = [self._start, *system_ids, self._end, *line, self._start, *shown]
        return before, [self._end, *line, self._start, *answer, self._last]


class Gme:
    """An `Embedder` of texts, images and both, by transformers on the CPU or one GPU."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Load a folder or a hub model; raises `DataError` where that fails."""
        folder = folder_of(model, revision)
        self._reader = Reader(folder, max_pixels=max_pixels)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = dtype or (torch.bfloat16 if self._device.type == "cuda" else torch.float32)
        try:
            network = AutoModel.from_pretrained(
                folder, dtype=kind, attn_implementation="sdpa", local_files_only=True
            )
        except Exception as error:  # the library raises errors of other libraries
            raise DataError(
                f"The model {model!r} cannot be loaded ({type(error).__name__}): give a folder or a"
                " hub id that it can read."
            ) from None
        self.network = network.to(self._device).eval()
        self.dimensions = int(self.network.get_input_embeddings().embedding_dim)
        self.described: dict[str, Any] = {
            "embedder": "gme",
            "model": model,
            "revision": revision,
            "dtype": str(kind),
            "max_pixels": max_pixels,
        }

    def queries(self, queries: Sequence[Query]) -> Vectors:
        """As `Embedder.queries`."""
        return self._embed(
            [
                self._reader.read(query.content, query.instruction, query.location)
                for query in queries
            ]
        )

    def documents(self, contents: Sequence[Content], locations: Sequence[str]) -> Vectors:
        """As `Embedder.documents`; documents have the default instruction."""
        return self._embed(
            [
                self._reader.read(content, None, location)
                for content, location in zip(contents, locations, strict=True)
            ]
        )

    def _embed(self, readings: Sequence[Reading]) -> Vectors:
        vectors: list[Vectors] = []
        for start in range(0, len(readings), PAIRS_A_PASS):
            vectors.append(self._pass(readings[start : start + PAIRS_A_PASS]))
        return np.concatenate(vectors)

    @torch.inference_mode()
    def _pass(self, readings: Sequence[Reading]) -> Vectors:
        rows = [_expanded(reading, self._reader.image_pad) for reading in readings]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        inputs: dict[str, Tensor] = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        }
        # without these, positions would be those of text alone, without any error
        inputs["mm_token_type_ids"] = (ids == self._reader.image_pad).int()
        pictures = [reading.picture for reading in readings if reading.picture is not None]
        if pictures:
            inputs["pixel_values"] = torch.from_numpy(
                np.concatenate([patches(picture) for picture in pictures])
            )
            inputs["image_grid_thw"] = torch.tensor([grid(_shape(picture)) for picture in pictures])
        moved = {name: value.to(self._device) for name, value in inputs.items()}
        hidden = self.network(**moved, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(rows)), lengths.to(self._device) - 1].float()
        vectors: Vectors = torch.nn.functional.normalize(last, dim=1).cpu().numpy()
        return vectors


def folder_of(model: str, revision: str | None) -> Path:
    """A model's folder: its own, or the hub's at a revision; raises `DataError`."""
    if Path(model).is_dir():
        return Path(model)

    try:
        return Path(snapshot_download(model, revision=revision))
    # the hub's client raises errors of its transport, whichever that is
    except Exception as error:
        raise DataError(
            f"The model {model!r} is no folder and cannot be had from the hub"
            f" ({type(error).__name__})."
        ) from None


def _expanded(reading: Reading, pad: int) -> list[int]:
    """The ids with as many placeholders as the picture has tokens."""
    if reading.picture is None:
        return reading.ids

    index = reading.ids.index(pad)
    placeholders = [pad] * image_tokens(_shape(reading.picture))
    return [*reading.ids[:index], *placeholders, *reading.ids[index + 1 :]]


def _shape(picture: npt.NDArray[np.uint8]) -> Image:
    return Image(b"", picture.shape[1], picture.shape[0])
