"""The loop of model cards: for each pair, the chat template, the processor, and one forward pass of
the whole prompt. It is the baseline of `gmr bench`, and the oracle of parity tests.

Does not depend on this project's prompts, batching or read-outs: it uses transformers alone. As in
the model cards, a forward pass computes logits for every position; `frugal` computes those of the
last position only.

Run as a module, it reads bodies of `POST /rerank`, one a line, and answers each with a line of
logits.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

FAMILY, TEMPLATE, READ_OUT = "gmr", "code", "yes - no"
"""The family, the template and the read-out whose model card has this loop."""
Part = str | Image.Image
"""A part of a query or document: a text or a picture."""

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)


class NaiveReranker:
    """A checkpoint's folder, loaded in fp32 as model cards load it."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self._model = (
            Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
            .eval()
            .to(device)
        )
        self._yes, self._no = (
            self._tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")
        )

    @torch.inference_mode()
    def logit(
        self,
        instruction: str,
        query: Sequence[Part],
        document: Sequence[Part],
        *,
        frugal: bool = False,
    ) -> float:
        """logit(yes) - logit(no) of one pair."""
        user = [{"type": "text", "text": f"<Instruct>: {instruction}<Query>:"}, *_parts(query)]
        user += [{"type": "text", "text": "\n<Document>:"}, *_parts(document)]
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )

        images = [part for part in (*query, *document) if isinstance(part, Image.Image)]
        inputs = self._inputs(text, images)
        on_device = {name: tensor.to(self._model.device) for name, tensor in inputs.items()}
        logits = self._model(**on_device, logits_to_keep=int(frugal)).logits[:, -1, :]
        return float(logits[0, self._yes] - logits[0, self._no])

    def ids(self, text: str, images: Sequence[Image.Image]) -> list[int]:
        """The ids of a rendered prompt, with image placeholders repeated as the processor does."""
        ids: list[int] = self._inputs(text, images)["input_ids"][0].tolist()
        return ids

    def _inputs(self, text: str, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The inputs of the network, as `Qwen2_5_VLProcessor` makes them.

        The processor itself cannot be loaded without torchvision.
        """
        inputs: dict[str, torch.Tensor] = {}
        if images:
            inputs |= self._processor(images=list(images), return_tensors="pt")
            for grid in inputs["image_grid_thw"]:
                tokens = int(grid.prod()) // self._processor.merge_size**2
                text = text.replace("<|image_pad|>", "<|placeholder|>" * tokens, 1)
            text = text.replace("<|placeholder|>", "<|image_pad|>")

        inputs |= self._tokenizer([text], return_tensors="pt")
        pad = self._tokenizer.convert_tokens_to_ids("<|image_pad|>")
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == pad).int()
        return inputs


def _parts(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in parts
    ]


def _decode(item: Any) -> Part:
    """A query or a document of a request: a text, or a picture in base64."""
    if isinstance(item, str):
        return item
    return Image.open(io.BytesIO(base64.b64decode(item["image"]))).convert("RGB")


def main() -> None:
    """Serve `gmr bench` over standard input and output: `FOLDER THREADS DEVICE FRUGAL`."""
    folder, threads, device, mode = sys.argv[1:5]
    torch.set_num_threads(int(threads))
    reranker = NaiveReranker(Path(folder), device=device)
    _write({"ready": True})

    for line in sys.stdin:
        request = json.loads(line)
        query = _decode(request["query"])
        logits = []
        for item in request["documents"]:
            document = _decode(item)
            logits.append(
                reranker.logit(request["instruction"], [query], [document], frugal=mode == "frugal")
            )
        _write({"logits": logits})


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
