"""`gmr publish`: a base and an adapter as a folder that the service verifies and serves.

Depends on the order of its steps. Invariant: the folder appears only after all ways of scoring it
agreed on the golden pairs, and the manifest is written after all other files.
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
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from model_store.adapters.fit import refuse_unless_fits, refuse_unless_read_alike
from model_store.adapters.folder import LoraFolder, read_adapter
from model_store.checkpoint import Checkpoint
from model_store.evaluation import naive
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
class PublishJob:
    """The parts of a result and where it goes.

    `dtype` None is the base's own; `python_vllm` is an interpreter that has vLLM. `read_out` is the
    read-out that the adapter was trained for; empty: the one in the adapter's header, or the
    base's.
    """

    base: Checkpoint
    adapter: Path
    output: Path
    name: str
    story: Story
    dtype: str | None = None
    device: str = "cpu"
    python_vllm: Path | None = None
    read_out: str = ""
    questions: Sequence[GoldenPair] = ()
    """Golden pairs for a base that has none; their logits are not used."""


def publish(
    job: PublishJob, *, merged: bool = True, report: Report = lambda line: None
) -> Manifest:
    """Make the folder; raises `PublishRefused` or `CheckpointUnusable`, and then leaves no file."""
    disable_progress_bar()
    adapter = read_adapter(job.adapter)
    target = _target(job, adapter)
    pairs = _readable(read_golden(job.base.folder) or job.questions, target)
    _refuse_early(job, adapter, target, pairs, merged=merged)

    with draft_of(job.output) as draft:
        step = _Publication(job, adapter, target, Parity(pairs, target.readout), draft, report)
        network = step.score_adapter()
        try:
            golden = step.write_merged(network) if merged else step.write_adapter(network)
        except SafetensorError as error:
            raise PublishRefused(
                f"{job.output.name} cannot be written ({type(error).__name__}: {error})."
            ) from None
        del network

        step.score_by_vllm(golden, merged=merged)
        step.parity.write(draft, _versions())
        report("writing the card and the manifest")
        text = card(job.name, job.base, target, adapter, step.parity, job.story, merged=merged)
        return seal(
            draft,
            name=job.name,
            described=described_as(target.manifest),
            card=text,
            lineage=_lineage(job, adapter, step.parity),
            base=None if merged else job.base.digest,
        )


def _target(job: PublishJob, adapter: LoraFolder) -> Checkpoint:
    """The base with the read-out of the result, which the adapter was trained for."""
    read_out = job.read_out or adapter.read_out or job.base.readout.name
    if read_out == job.base.readout.name:
        return job.base
    if read_out == job.base.family.readouts[0].name:
        read_out = ""  # the family's default, which manifests leave out
    return replace(job.base, manifest=job.base.manifest.model_copy(update={"read_out": read_out}))


def _readable(pairs: Sequence[GoldenPair], target: Checkpoint) -> list[GoldenPair]:
    """Pairs that the family reads: without those with pictures where it reads text only."""
    if target.family.images is not None:
        return list(pairs)
    return [pair for pair in pairs if not any(_pictures(pair))]


def _pictures(pair: GoldenPair) -> list[bool]:
    return [not isinstance(part, str) for part in (*pair.query, *pair.document)]


def _refuse_early(
    job: PublishJob,
    adapter: LoraFolder,
    target: Checkpoint,
    pairs: Sequence[GoldenPair],
    *,
    merged: bool,
) -> None:
    """Refuse all that can be refused before weights are loaded."""
    name = adapter.folder.name
    refuse_unless_read_alike(adapter, name, target.readout)
    if not merged and target.readout != job.base.readout:
        raise PublishRefused(
            f"{name} was trained for the score {target.readout.name}, and the score of"
            f" {job.base.name} is {job.base.readout.name}, by which it would be read beside it:"
            " publish it merged."
        )
    if not pairs:
        raise PublishRefused(f"{job.base.name} has no golden pairs, and none were given.")
    _refuse_resized(pairs, target)
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
        refuse_unless_fits(adapter, name, job.base.folder)


def _refuse_resized(pairs: Sequence[GoldenPair], target: Checkpoint) -> None:
    """Raise `PublishRefused` for a golden picture that the family would resize."""
    rules = target.family.images
    for pair in pairs:
        for part in (*pair.query, *pair.document):
            if isinstance(part, str) or rules is None:
                continue
            if not rules.min_pixels <= part.shape[0] * part.shape[1] <= rules.max_pixels:
                raise PublishRefused(
                    "A golden picture is not of a size that the base reads as it is."
                )


@dataclass(frozen=True, slots=True)
class _Publication:
    """One job at work in its draft."""

    job: PublishJob
    adapter: LoraFolder
    target: Checkpoint
    parity: Parity
    draft: Path
    report: Report

    def score_adapter(self) -> Any:
        """The base with the adapter applied, after both were scored."""
        job = self.job
        self.report(f"loading {job.base.name}")
        network = load_base(job.base, job.device)
        self.report("scoring the base")
        self.parity.add("base", self._logits(network))
        self.report("scoring the base with the adapter beside it")
        adapted = apply_adapter(network, self.adapter, job.base.architecture)
        self.parity.add("adapter", self._logits(adapted.get_base_model()))
        if self.parity.logits["adapter"] == self.parity.logits["base"]:
            raise PublishRefused(
                f"{self.adapter.folder.name} changes no golden pair's logit: it was not trained,"
                " or is not for this base."
            )
        return adapted

    def write_merged(self, adapted: Any) -> list[GoldenPair]:
        """Merge, save in the dtype that is stored, and score each on the way; returns the golden
        pairs."""
        dtype = _dtype(self.job)
        self.report("merging")
        try:
            network = adapted.merge_and_unload(safe_merge=True)
        except ValueError:
            raise PublishRefused(
                f"{self.adapter.folder.name} cannot be merged: it has weights that are not finite."
            ) from None
        self.parity.add("merged", self._logits(network), against="adapter")

        self.report(f"saving in {dtype}")
        # buffers stay in fp32, in which a network that is loaded makes them
        for parameter in network.parameters():
            parameter.data = parameter.data.to(DTYPES[dtype])
        for config in _configs(network):
            config.dtype = DTYPES[dtype]
        network.save_pretrained(self.draft)
        copy_reading(self.job.base, self.draft)

        for parameter in network.parameters():
            parameter.data = parameter.data.float()
        rounded = self._logits(network)
        self.parity.add("rounded", rounded, against="merged", tolerance=ROUNDING[dtype])
        del network, adapted

        self.report("reading it again")
        published = replace(self.target, name=self.job.name, folder=self.draft)
        reread = load_base(published, self.job.device)
        found = self._logits(reread, by_score_row=True)
        del reread
        self.parity.add("reloaded", found, against="rounded")
        if _has_model_card_loop(self.target):
            self.parity.add("model card", self._model_card_logits(), against="reloaded")
        return self._write_golden(found)

    def write_adapter(self, adapted: Any) -> list[GoldenPair]:
        """Copy the adapter with the name of its base, and score it; returns the golden pairs."""
        del adapted
        job = self.job
        base = load_base(job.base, job.device)
        write_today(self.adapter, base, self.draft, job.base)
        self.report("reading it again")
        reread = apply_adapter(base, read_adapter(self.draft), job.base.architecture)
        found = self._logits(reread.get_base_model(), by_score_row=True)
        self.parity.add("reloaded", found, against="adapter")
        return self._write_golden(found)

    def score_by_vllm(self, golden: Sequence[GoldenPair], *, merged: bool) -> None:
        """Score by vLLM, where the job has an interpreter for it."""
        job = self.job
        if job.python_vllm is None:
            return
        self.report("asking vLLM")
        if merged:
            served = replace(self.target, name=job.name, folder=self.draft)
            found = vllm_logits_of(job.python_vllm, served, golden, self.draft)
        else:
            rank = self.adapter.rank
            found = vllm_logits_of(
                job.python_vllm, job.base, golden, self.draft, adapter=self.draft, rank=rank
            )
        self.parity.add("vllm", found, against="reloaded")

    def _logits(self, network: PreTrainedModel, *, by_score_row: bool = False) -> list[float]:
        return logits_of(network, self.target, self.parity.pairs, by_score_row=by_score_row)

    def _model_card_logits(self) -> list[float]:
        """Logits by the loop of model cards; raises `PublishRefused` where that cannot read the
        folder."""
        try:
            loop = NaiveReranker(self.draft, device=self.job.device)
            return [model_card_logit(loop, pair) for pair in self.parity.pairs]
        except Exception as error:  # transformers and Jinja raise many kinds
            raise PublishRefused(
                f"{self.job.base.name}: transformers cannot read its tokenizer, chat template or"
                f" processor ({type(error).__name__})."
            ) from None

    def _write_golden(self, logits: Sequence[float]) -> list[GoldenPair]:
        golden: list[GoldenPair] = []
        for pair, logit in zip(self.parity.pairs, logits, strict=True):
            golden.append(replace(pair, logit=logit))
        write_golden(self.draft, golden)
        return golden


def _has_model_card_loop(target: Checkpoint) -> bool:
    """True for the prompt and the read-out of the loop in `evaluation.naive`."""
    reads = (target.manifest.family, target.manifest.template, target.readout.name)
    return reads == (naive.FAMILY, naive.TEMPLATE, naive.READ_OUT)


def _configs(network: Any) -> list[Any]:
    """The configuration of a network, and those of its parts."""
    config = network.config
    return [config, *(getattr(config, name) for name in config.sub_configs)]


def _dtype(job: PublishJob) -> str:
    """The stored dtype: the job's, or the base's."""
    if job.dtype:
        return job.dtype
    config = json.loads((job.base.folder / "config.json").read_text(encoding="utf-8"))
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return stated if stated in DTYPES else "bfloat16"


def _lineage(job: PublishJob, adapter: LoraFolder, parity: Parity) -> Mapping[str, Any]:
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
        "parity": {way: largest for way, (_, largest, _) in parity.deviations.items()},
        "versions": _versions(),
        **job.story.lineage(),
    }


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("gmr-rerank", "peft", "transformers")}
    return {"python": platform.python_version(), "torch": torch.__version__, **found}
