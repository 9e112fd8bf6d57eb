"""vLLM's own server: how it is started, with a score template that gives our prompts, and what it
is sent and answers.

Knows vLLM's command line and its scoring API. Invariant: for ordinary text the template's prompt
has the token ids of our own.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from model_store.checkpoint import Checkpoint
from model_store.families.catalogue import kind_of
from model_store.families.family import ImageRules
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.manifest import Manifest
from service.bench.plan import Plan
from service.bench.workloads import INSTRUCTION, Request

# The `vllm` command of the CPU build does not start; this module is what it runs.
_MODULE = "vllm.entrypoints.openai.api_server"
_SLOTS = {
    "instruction": "instruction",
    "query": "messages[0]['content']",
    "document": "messages[1]['content']",
}


def command(
    plan: Plan, checkpoint: Checkpoint, port: str, template: Path, *, tuned: bool
) -> list[str]:
    """The command line: as vLLM's documentation starts a Qwen reranker, or tuned with all that our
    worker has.

    The documentation names no dtype; it is given here, since vLLM would choose one in which it is
    far slower on a CPU. Statistics stay on, which our worker has off: they are how tokens are
    counted.
    """
    template.write_text(score_template(checkpoint.manifest), encoding="utf-8")
    overrides = vllm_overrides(checkpoint.name, checkpoint.folder, checkpoint.readout)
    line = [
        plan.python_vllm,
        "-m",
        _MODULE,
        "--model",
        str(checkpoint.folder),
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    line += [
        "--runner",
        "pooling",
        "--convert",
        "classify",
        "--hf-overrides",
        json.dumps(overrides),
    ]
    line += [
        "--chat-template",
        str(template),
        "--max-model-len",
        str(checkpoint.manifest.max_tokens),
    ]
    settings = plan.engine_settings() if tuned else plan.common_settings()
    for name, value in settings.items():
        option = name.replace("_", "-")
        if value.lower() in ("true", "false"):
            line.append(f"--{option}" if value.lower() == "true" else f"--no-{option}")
        else:
            line.append(f"--{option}={value}")
    return line + ["--enable-prefix-caching", "--disable-uvicorn-access-log"] * tuned


def score_template(manifest: Manifest) -> str:
    """A checkpoint's template in Jinja, all fixed text as literals: Jinja would drop the last line
    break of a bare text."""
    halves = kind_of(manifest).templates[manifest.template]
    pieces = re.split(r"\{(\w+)\}", "".join(halves))
    return "".join(
        f"{{{{ {_SLOTS[piece] if place % 2 else json.dumps(piece)} }}}}"
        for place, piece in enumerate(pieces)
    )


def rerank_body(request: Request) -> bytes:
    """A request as `POST /rerank`. The raw logit is asked for instead of the probability, so that
    it can be compared."""
    body = request.body()
    documents = [_content(item) for item in body["documents"]]
    asked = {
        "query": _content(body["query"]),
        "documents": documents,
        "instruction": INSTRUCTION,
        "use_activation": False,
    }
    return json.dumps(asked).encode()


def score_bodies(request: Request, rules: ImageRules | None, most: int) -> list[bytes]:
    """A request as several of `POST /score`, with at most so many documents each, and pictures of
    the size the model reads."""
    body = request.body()
    query, *documents = (
        _content(_resized(item, rules)) for item in (body["query"], *body["documents"])
    )
    parts = (documents[start : start + most] for start in range(0, len(documents), most))
    fixed = {"queries": query, "instruction": INSTRUCTION, "use_activation": False}
    return [json.dumps(fixed | {"documents": part}).encode() for part in parts]


def read_logits(answers: Sequence[bytes]) -> list[float]:
    """One a document in order, from the answers of either route."""
    logits: list[float] = []
    for answer in map(json.loads, answers):
        results = answer.get("results") or answer["data"]
        scores = {
            result["index"]: float(result.get("relevance_score", result.get("score")))
            for result in results
        }
        logits += [scores[index] for index in range(len(scores))]
    return logits


def _content(item: Any) -> Any:
    """A query or document of ours as vLLM wants it: a text, or content parts."""
    if isinstance(item, str):
        return item
    kind = "png" if item["image"].startswith("iVBOR") else "jpeg"
    return {
        "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{item['image']}"}}
        ]
    }


def _resized(item: Any, rules: ImageRules | None) -> Any:
    """A picture that is not of the size the model reads, resized as its processor does, without
    loss; else as it is."""
    if isinstance(item, str) or rules is None:
        return item
    image = Image.open(io.BytesIO(base64.b64decode(item["image"])))
    size = model_size(image.size, rules)
    if size == image.size:
        return item
    buffer = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
        buffer, "PNG", compress_level=1
    )
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


def model_size(size: tuple[int, int], rules: ImageRules) -> tuple[int, int]:
    """The (width, height) that the processor gives a picture."""
    width, height = size
    high, wide = smart_resize(height, width, rules.cell, rules.min_pixels, rules.max_pixels)
    return wide, high
