"""vLLM's own server: its command line, requests and answers.

Depends on vLLM's command line and its scoring API, and on the chat template of a pair. Invariant:
for ordinary text the server's prompt has the token ids of our own.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from model_store.checkpoint import Checkpoint
from model_store.families.family import ImageRules
from model_store.families.images import smart_resize
from model_store.folders.chat_template import pair_template
from model_store.folders.vllm_overrides import vllm_overrides
from service.bench.plan import Plan
from service.bench.workloads import INSTRUCTION, Request

# The `vllm` command of the CPU build does not start; this module is what it runs.
_MODULE = "vllm.entrypoints.openai.api_server"


def command(
    plan: Plan, checkpoint: Checkpoint, port: str, template: Path, *, tuned: bool
) -> list[str]:
    """The command line: that of vLLM's documentation for a Qwen reranker, or `tuned`.

    A tuned server has all settings of our worker. The documentation names no dtype; one is given
    here, since vLLM would choose one in which it is far slower on a CPU. Statistics, which our
    worker switches off, stay on, because tokens are counted by them.
    """
    template.write_text(pair_template(checkpoint.manifest), encoding="utf-8")
    overrides = vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout)
    line = [plan.python_vllm, "-m", _MODULE, "--model", str(checkpoint.folder)]
    line += ["--host", "127.0.0.1", "--port", port]
    line += ["--runner", "pooling", "--convert", "classify"]
    line += ["--hf-overrides", json.dumps(overrides)]
    line += ["--chat-template", str(template)]
    line += ["--max-model-len", str(checkpoint.manifest.max_tokens)]

    settings = plan.engine_settings() if tuned else plan.common_settings()
    for name, value in settings.items():
        option = name.replace("_", "-")
        if value.lower() in ("true", "false"):
            line.append(f"--{option}" if value.lower() == "true" else f"--no-{option}")
        else:
            line.append(f"--{option}={value}")

    if tuned:
        line += ["--enable-prefix-caching", "--disable-uvicorn-access-log"]
    return line


def rerank_body(request: Request) -> bytes:
    """A request as `POST /rerank`, for raw scores instead of probabilities, to compare them."""
    body = request.body()
    translated = {
        "query": _content(body["query"]),
        "documents": [_content(item) for item in body["documents"]],
        "instruction": INSTRUCTION,
        "use_activation": False,
    }
    return json.dumps(translated).encode()


def score_bodies(
    request: Request, rules: ImageRules | None, max_documents: int, *, salt: str = ""
) -> list[bytes]:
    """A request as several of `POST /score`, with at most `max_documents` documents each.

    Images have the size that the model reads. Calls with different salts share no prefix.
    """
    body = request.body()
    query = _content(_resized(body["query"], rules))
    documents = [_content(_resized(item, rules)) for item in body["documents"]]

    bodies = []
    for start in range(0, len(documents), max_documents):
        part = {
            "queries": query,
            "instruction": INSTRUCTION,
            "use_activation": False,
            "documents": documents[start : start + max_documents],
        }
        if salt:
            part["cache_salt"] = salt
        bodies.append(json.dumps(part).encode())
    return bodies


def read_logits(answers: Sequence[bytes]) -> list[float]:
    """The scores of all documents in order, from the answers of either route."""
    logits: list[float] = []
    for answer in map(json.loads, answers):
        scores: dict[int, float] = {}
        for result in answer.get("results") or answer["data"]:
            score = result.get("relevance_score", result.get("score"))
            scores[result["index"]] = float(score)
        logits += [scores[index] for index in range(len(scores))]
    return logits


def _content(item: Any) -> Any:
    """A query or document in vLLM's form: a text, or content parts."""
    if isinstance(item, str):
        return item
    kind = "png" if item["image"].startswith("iVBOR") else "jpeg"
    url = f"data:image/{kind};base64,{item['image']}"
    return {"content": [{"type": "image_url", "image_url": {"url": url}}]}


def _resized(item: Any, rules: ImageRules | None) -> Any:
    """An image in the size that the model reads, resized as its processor does, without loss.

    Texts, and images of that size, are returned as they are.
    """
    if isinstance(item, str) or rules is None:
        return item

    image = Image.open(io.BytesIO(base64.b64decode(item["image"])))
    size = model_size(image.size, rules)
    if size == image.size:
        return item

    resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "PNG", compress_level=1)
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


def model_size(size: tuple[int, int], rules: ImageRules) -> tuple[int, int]:
    """The (width, height) that the processor gives an image."""
    width, height = size
    return smart_resize(
        width,
        height,
        cell=rules.cell,
        min_pixels=rules.min_pixels,
        max_pixels=rules.max_pixels,
    )
