"""`gmr publish`: base and adapter to a folder that the service verifies and serves.

Knows the order of things. Invariant: nothing is visible before every way of scoring it agreed on
the golden pairs, and the manifest comes after all else.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Qwen2_5_VLForConditionalGeneration as Network
from transformers.utils.logging import disable_progress_bar

from model_store.adapters.fit import refuse_unless_fits, refuse_unless_read_alike
from model_store.adapters.folder import LoraFolder, read_adapter
from model_store.checkpoint import Checkpoint
from model_store.evaluation.naive import NaiveReranker
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.golden import GoldenPair, read_golden, write_golden
from model_store.manifest import Manifest, digest_files
from model_store.training.publish.adapters import apply_adapter, load_base, write_today
from model_store.training.publish.card import Story, card
from model_store.training.publish.folder import (
    copy_reading,
    described_as,
    draft_of,
    refuse_unless_room,
    refuse_unless_servable,
    seal,
)
from model_store.training.publish.other_engine import vllm_logits_of
from model_store.training.publish.pairs import PublishRefused, logits_of, model_card_logit
from model_store.training.publish.parity import ROUNDING, Parity

Report = Callable[[str], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be published. `dtype` None is the base's own; `python_vllm` an interpreter that
    has vLLM."""

    base: Checkpoint
    adapter: Path
    output: Path
    name: str
    story: Story
    dtype: str | None = None
    device: str = "cpu"
    python_vllm: Path | None = None
    questions: Sequence[GoldenPair] = ()
    """Golden pairs for a base that has none; their logits do not count."""


def publish(job: Job, *, merged: bool = True, report: Report = lambda line: None) -> Manifest:
    """Make the folder; raises `PublishRefused` or `CheckpointUnusable`, and then leaves nothing
    behind."""
    disable_progress_bar()
    adapter = read_adapter(job.adapter)
    pairs = read_golden(job.base.folder) or list(job.questions)
    _refuse_early(job, adapter, pairs, merged=merged)
    with draft_of(job.output) as draft:
        parity = Parity(pairs)
        network = _score_adapter(job, adapter, parity, report)
        try:
            write = _write_merged if merged else _write_adapter
            golden = write(job, adapter, network, parity, draft, report)
        except SafetensorError as error:
            raise PublishRefused(
                f"{job.output.name} cannot be written ({type(error).__name__}: {error})."
            ) from None
        del network
        _ask_vllm(job, adapter, parity, golden, draft, report, merged=merged)
        parity.write(draft, _versions())
        report("writing the card and the manifest")
        lineage = _lineage(job, adapter, parity)
        text = card(job.name, job.base, adapter, parity, job.story, merged=merged)
        base = None if merged else job.base.digest
        return seal(
            draft,
            name=job.name,
            described=described_as(job.base.manifest),
            card=text,
            lineage=lineage,
            base=base,
        )


def _refuse_early(
    job: Job, adapter: LoraFolder, pairs: Sequence[GoldenPair], *, merged: bool
) -> None:
    """All that can be known before weights are loaded."""
    refuse_unless_read_alike(adapter, adapter.folder.name, job.base.readout)
    if not pairs:
        raise PublishRefused(f"{job.base.name} has no golden pairs, and none were given.")
    bounds = job.base.manifest.pixels
    for part in (part for pair in pairs for part in (*pair.query, *pair.document)):
        if (
            not isinstance(part, str)
            and bounds
            and not bounds.min_pixels <= part.shape[0] * part.shape[1] <= bounds.max_pixels
        ):
            raise PublishRefused("A golden picture is not of a size that the base reads as it is.")
    if job.output.exists():
        raise PublishRefused(
            f"{job.output.name} is there already: a published folder is never changed."
        )
    weights = sum(path.stat().st_size for path in job.base.folder.glob("*.safetensors"))
    if merged:
        refuse_unless_servable(job.base)
        wider = 2 if _dtype(job) == "float32" else 1
        refuse_unless_room(job.output.parent, wider * weights + 2**24)
    else:
        refuse_unless_fits(adapter, adapter.folder.name, job.base.folder)


def _score_adapter(job: Job, adapter: LoraFolder, parity: Parity, report: Report) -> Any:
    """The base with the adapter on, after both were scored."""
    report(f"loading {job.base.name}")
    network, family = load_base(job.base, job.device), job.base.family
    report("scoring the base")
    parity.add("base", logits_of(network, family, parity.pairs))
    report("scoring the base with the adapter beside it")
    worn = apply_adapter(network, adapter)
    parity.add("adapter", logits_of(worn.get_base_model(), family, parity.pairs))
    if parity.logits["adapter"] == parity.logits["base"]:
        raise PublishRefused(
            f"{adapter.folder.name} changes no golden pair's logit: it was not trained, or is not"
            " for this base."
        )
    return worn


def _write_merged(
    job: Job, adapter: LoraFolder, worn: Any, parity: Parity, draft: Path, report: Report
) -> list[GoldenPair]:
    """Merge, save and read again; gives the golden pairs as the folder scores them."""
    family, dtype = job.base.family, _dtype(job)
    report("merging")
    try:
        network = worn.merge_and_unload(safe_merge=True)
    except ValueError:
        raise PublishRefused(
            f"{adapter.folder.name} cannot be merged: it has weights that are not finite."
        ) from None
    parity.add("merged", logits_of(network, family, parity.pairs), against="adapter")
    report(f"saving in {dtype}")
    # its buffers stay: a network that is read again makes them in fp32
    for parameter in network.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype])
    for config in (network.config, network.config.text_config, network.config.vision_config):
        config.dtype = DTYPES[dtype]
    network.save_pretrained(draft)
    copy_reading(job.base, draft)
    for parameter in network.parameters():
        parameter.data = parameter.data.float()
    parity.add(
        "rounded",
        logits_of(network, family, parity.pairs),
        against="merged",
        tolerance=ROUNDING[dtype],
    )
    del network, worn
    report("reading it again")
    reread = (
        Network.from_pretrained(
            draft, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        .to(job.device)
        .eval()
    )
    found = logits_of(reread, family, parity.pairs, two_rows=True)
    del reread
    parity.add("reloaded", found, against="rounded")
    if job.base.manifest.template == "code":  # the loop knows no other
        parity.add("model card", _by_the_card(job, draft, parity), against="reloaded")
    golden = [replace(pair, logit=logit) for pair, logit in zip(parity.pairs, found, strict=True)]
    write_golden(draft, golden)
    return golden


def _by_the_card(job: Job, draft: Path, parity: Parity) -> list[float]:
    """The pairs' logits by the loop of model cards; raises `PublishRefused` where that cannot read
    what was written."""
    try:
        loop = NaiveReranker(draft, device=job.device)
        return [model_card_logit(loop, pair) for pair in parity.pairs]
    except Exception as error:  # transformers and Jinja raise many kinds
        raise PublishRefused(
            f"{job.base.name}: transformers cannot read its tokenizer, chat template or processor"
            f" ({type(error).__name__})."
        ) from None


def _write_adapter(
    job: Job, adapter: LoraFolder, worn: Any, parity: Parity, draft: Path, report: Report
) -> list[GoldenPair]:
    """Copy the adapter; what it was trained on is named, not where that lay."""
    del worn
    base = load_base(job.base, job.device)
    write_today(adapter, base, draft, job.base.name)
    report("reading it again")
    reread = apply_adapter(base, read_adapter(draft)).get_base_model()
    parity.add(
        "reloaded",
        logits_of(reread, job.base.family, parity.pairs, two_rows=True),
        against="adapter",
    )
    golden = [
        replace(pair, logit=logit)
        for pair, logit in zip(parity.pairs, parity.logits["reloaded"], strict=True)
    ]
    write_golden(draft, golden)
    return golden


def _ask_vllm(
    job: Job,
    adapter: LoraFolder,
    parity: Parity,
    golden: list[GoldenPair],
    draft: Path,
    report: Report,
    *,
    merged: bool,
) -> None:
    if job.python_vllm is None:
        return
    report("asking vLLM")
    if merged:
        served = Checkpoint(job.name, draft, job.base.manifest)
        found = vllm_logits_of(job.python_vllm, served, golden, draft)
    else:
        found = vllm_logits_of(
            job.python_vllm, job.base, golden, draft, adapter=draft, rank=adapter.rank
        )
    parity.add("vllm", found, against="reloaded")


def _dtype(job: Job) -> str:
    """The dtype that is stored: the one asked for, or the base's."""
    if job.dtype:
        return job.dtype
    config = json.loads((job.base.folder / "config.json").read_text(encoding="utf-8"))
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return stated if stated in DTYPES else "bfloat16"


def _lineage(job: Job, adapter: LoraFolder, parity: Parity) -> Mapping[str, Any]:
    files = digest_files(adapter.folder, [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    return {
        "base": {
            "name": job.base.name,
            "digest": job.base.digest,
            "lineage": job.base.manifest.lineage,
        },
        "adapter": {
            "rank": adapter.rank,
            "files": {name: file.sha256 for name, file in files.items()},
        },
        "parity": {way: worst for way, (_, worst, _) in parity.deviations.items()},
        "versions": _versions(),
        **job.story.lineage(),
    }


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("gmr-rerank", "peft", "transformers")}
    return {"python": platform.python_version(), "torch": torch.__version__, **found}
