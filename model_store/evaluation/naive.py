"""The loop that people copy from model cards: for each pair, chat template, processor, one forward
pass of the whole prompt.

The baseline of `gmr bench`, and the oracle of parity tests. Uses transformers alone, none of this
project's prompts or batching. As the cards have it, the forward pass gives logits for every
position; `frugal` asks for the last position only.

Run as a module it answers requests of `POST /rerank`, a line each, with their documents' logits.
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

Part = str | Image.Image
"""A query or a document: a text, or a picture."""

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)


class NaiveReranker:
    """A checkpoint folder, loaded as a model card says, in fp32."""

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
        placed = {name: tensor.to(self._model.device) for name, tensor in inputs.items()}
        logits = self._model(**placed, logits_to_keep=int(frugal)).logits[:, -1, :]
        return float(logits[0, self._yes] - logits[0, self._no])

    def ids(self, text: str, images: Sequence[Image.Image]) -> list[int]:
        """The ids of a rendered prompt, its image placeholders repeated as the processor repeats
        them."""
        ids: list[int] = self._inputs(text, images)["input_ids"][0].tolist()
        return ids

    def _inputs(self, text: str, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """What `Qwen2_5_VLProcessor` gives; it cannot be loaded itself without torchvision."""
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


def _received(item: Any) -> Part:
    """A query or a document of a request to `POST /rerank`: a text, or a picture decoded from
    base64."""
    if isinstance(item, str):
        return item
    return Image.open(io.BytesIO(base64.b64decode(item["image"]))).convert("RGB")


def main() -> None:
    """`FOLDER THREADS DEVICE FRUGAL`: answer `gmr bench`, one line a request of `POST /rerank`, one
    line with its logits."""
    folder, threads, device, frugal = (
        Path(sys.argv[1]),
        int(sys.argv[2]),
        sys.argv[3],
        sys.argv[4] == "frugal",
    )
    torch.set_num_threads(threads)
    reranker = NaiveReranker(folder, device=device)
    _say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        query, instruction = _received(asked["query"]), asked["instruction"]
        documents = (_received(item) for item in asked["documents"])
        _say(
            {
                "logits": [
                    reranker.logit(instruction, [query], [document], frugal=frugal)
                    for document in documents
                ]
            }
        )


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
