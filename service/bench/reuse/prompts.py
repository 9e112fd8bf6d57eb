"""One checkpoint with either side first in its prompt, and the room that its documents need in a
KV cache.

Depends on folders and tokenizers, on no server. Invariant: the checkpoints differ in their prompt
alone, unless one that was trained with the document first ships beside the model; times do not
depend on weights.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from model_store.checkpoint import Checkpoint, resolve, shipped
from model_store.families.prompt import Item, Prompt
from model_store.manifest import MANIFEST, Manifest, PixelBounds, digest_files, write_manifest
from model_store.sizing.network import network_cost
from service.bench.comparison.roofline import prompt_part
from service.bench.plan import BenchRefused, Plan
from service.bench.reuse.pool import IMAGE_PIXELS, Pool
from service.bench.workloads import INSTRUCTION, Request

_TEMPLATES = {"document": "document-first", "query": "code"}
"""GMR's template by the side that its prompts begin with."""
_TRAINED = {"gmr-tiny": "gmr-tiny-d"}
"""Checkpoints that were trained with the document first, by the model that they were made of."""
_LEFT_OUT = (MANIFEST, "golden", "golden.json", "parity.json")
"""Files about scores of another prompt."""
_PREPROCESSOR = "preprocessor_config.json"
_BLOCK = 32
"""Tokens of a block of the cache."""
_SPARE = 1.2
_BYTES = {"float32": 4, "bfloat16": 2}


def with_prompt(checkpoint: Checkpoint, prompt: str, folder: Path, *, weights: bool) -> Checkpoint:
    """A copy in `folder` whose prompts begin with `prompt`, "document" or "query", and whose images
    may have 448 x 448 pixels.

    Raises `BenchRefused` for a family without such a prompt.
    """
    if checkpoint.manifest.family != "gmr":
        raise BenchRefused(f"{checkpoint.name} is no GMR, whose prompt has both orders.")

    source = checkpoint
    if prompt == "document" and _TRAINED.get(checkpoint.name) in shipped():
        source = resolve(_TRAINED[checkpoint.name])
    shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    manifest = source.manifest.model_copy(
        update={"template": _TEMPLATES[prompt], "pixels": _widened(source.manifest, folder)}
    )
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    write_manifest(folder, manifest.model_copy(update={"files": digest_files(folder, files)}))
    return resolve(str(folder), weights=weights)


def cache_gib(checkpoint: Checkpoint, plan: Plan, pools: list[Pool]) -> int:
    """Memory of a KV cache on a CPU in which all documents of the largest pool have room, and two
    requests beside them."""
    network = network_cost(str(checkpoint.folder))
    token_bytes = network.kv_bytes * _BYTES[plan.dtype] // _BYTES["bfloat16"]
    most = 1
    for pool in pools:
        held = pool.size + 2 * pool.documents
        needed = held * _pair_tokens(checkpoint, pool.first(0)) * token_bytes
        most = max(most, math.ceil(needed * _SPARE / 2**30))
    return most


def _pair_tokens(checkpoint: Checkpoint, request: Request) -> int:
    """Tokens of the first pair of a request, in whole blocks."""
    parts: list[Item] = []
    for part in (request.query, request.documents[0]):
        parts.append((prompt_part(part, checkpoint),))
    (prompt,) = checkpoint.family.render((INSTRUCTION,), parts[0], [parts[1]])
    assert isinstance(prompt, Prompt), "a pair of the workload fits into the prompt"
    return math.ceil(len(prompt.ids) / _BLOCK) * _BLOCK


def _widened(manifest: Manifest, folder: Path) -> PixelBounds | None:
    """The manifest's bounds with room for the workload's images, which are written to the folder's
    image processor, too."""
    bounds = manifest.pixels
    if bounds is None or bounds.max_pixels >= IMAGE_PIXELS:
        return bounds

    processor = json.loads((folder / _PREPROCESSOR).read_text(encoding="utf-8"))
    processor["max_pixels"] = IMAGE_PIXELS
    text = json.dumps(processor, indent=2)
    (folder / _PREPROCESSOR).write_text(text + "\n", encoding="utf-8")
    return PixelBounds(min_pixels=bounds.min_pixels, max_pixels=IMAGE_PIXELS)
