"""`gmr publish`: a base and an adapter as a folder that the service verifies and serves.

Depends on the order of its steps. Invariant: the folder appears only after all ways of scoring it
agreed on the golden pairs, and the manifest is written after all other files.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from model_store.adapters.fit import refuse_unless_fits, refuse_unless_read_alike
from model_store.adapters.folder import LoraFolder, read_adapter
from model_store.checkpoint import Checkpoint
from model_store.families.readout import GeneratedScore
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.golden import GoldenPair, read_golden
from model_store.manifest import Manifest, digest_files
from model_store.training.publish.card import card
from model_store.training.publish.folder import (
    described_as,
    draft_of,
    refuse_unless_room,
    refuse_unless_servable,
    seal,
)
from model_store.training.publish.job import PublishJob
from model_store.training.publish.pairs import PublishRefused
from model_store.training.publish.parity import Parity
from model_store.training.publish.publication import Publication, Report


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
        parity = Parity(pairs, target.readout, versions=_versions())
        publication = Publication(job, adapter, target, parity, draft, report)
        network = publication.score_adapter()
        try:
            golden = (
                publication.write_merged(network) if merged else publication.write_adapter(network)
            )
        except SafetensorError as error:
            raise PublishRefused(
                f"{job.output.name} cannot be written ({type(error).__name__}: {error})."
            ) from None
        del network

        publication.score_by_vllm(golden, merged=merged)
        parity.write(draft)
        report("writing the card and the manifest")
        published = publication.published if merged else None
        text = card(job.name, job.base, target, adapter, parity, job.story, published=published)
        return seal(
            draft,
            name=job.name,
            described=described_as(target.manifest),
            card=text,
            lineage=_lineage(job, adapter, parity),
            base=None if merged else job.base.digest,
        )


def _target(job: PublishJob, adapter: LoraFolder) -> Checkpoint:
    """The base with the read-out and the template of the result, which the adapter was trained
    for."""
    base = job.base.with_template(job.template or adapter.template or None)
    read_out = job.read_out or adapter.read_out or job.base.readout.name
    if read_out == base.readout.name:
        return base

    if read_out == base.family.readouts[0].name:
        read_out = ""  # the family's default, which manifests leave out
    return replace(base, manifest=base.manifest.model_copy(update={"read_out": read_out}))


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
    refuse_unless_read_alike(adapter, name, target.readout, target.manifest.template)
    if not merged and target.readout != job.base.readout:
        raise PublishRefused(
            f"{name} was trained for the score {target.readout.name}, and the score of"
            f" {job.base.name} is {job.base.readout.name}, by which it would be read beside it:"
            " publish it merged."
        )
    if not merged and target.manifest.template != job.base.manifest.template:
        raise PublishRefused(
            f"{name} was trained with the template {target.manifest.template}, and"
            f" {job.base.name} has {job.base.manifest.template}, by which it would be read beside"
            " it: publish it merged."
        )
    if job.python_vllm is not None and isinstance(target.readout, GeneratedScore):
        raise PublishRefused(
            f"{job.base.name} writes its score, and vLLM is asked for scores of labels alone: leave"
            " --python-vllm out, a worker with vLLM checks the golden pairs at its start."
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
        wider = 2 if job.stored_dtype == "float32" else 1
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
        "versions": dict(parity.versions),
        **job.story.lineage(),
    }


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("gmr-rerank", "peft", "transformers")}
    return {"python": platform.python_version(), "torch": torch.__version__, **found}
