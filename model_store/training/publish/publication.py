"""One publication at work in its draft: score, write, read again, and compare.

Depends on networks, adapters and parity, not on the card or the manifest. Invariant: a way of
scoring that disagrees with the one before it stops the publication.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from model_store.adapters.folder import LoraFolder, read_adapter
from model_store.checkpoint import Checkpoint
from model_store.evaluation import naive
from model_store.evaluation.naive import NaiveReranker
from model_store.families.readout import GeneratedScore
from model_store.golden import GoldenPair, write_golden
from model_store.training.publish.adapters import apply_adapter, load_base, write_today
from model_store.training.publish.folder import copy_reading
from model_store.training.publish.job import DTYPES, PublishJob
from model_store.training.publish.other_engines.cross_encoder import predicted_logits
from model_store.training.publish.other_engines.vllm_offline import vllm_logits_of
from model_store.training.publish.other_engines.vllm_server import served_logits
from model_store.training.publish.pairs import (
    PublishRefused,
    logits_of,
    model_card_logit,
    written_score,
)
from model_store.training.publish.parity import PREDICT_TOLERANCE, ROUNDING, Parity
from model_store.training.publish.portable import is_portable, vllm_command, write_portable

Report = Callable[[str], None]
"""Takes a line on each stage."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One job at work in its draft."""

    job: PublishJob
    adapter: LoraFolder
    target: Checkpoint
    parity: Parity
    draft: Path
    report: Report

    @property
    def published(self) -> Checkpoint:
        """The draft as the checkpoint that it becomes where the adapter is merged."""
        return replace(self.target, name=self.job.name, folder=self.draft)

    @property
    def _document_first(self) -> bool:
        return self.target.family.cacheable_side == "document"

    def score_adapter(self) -> Any:
        """The base with the adapter applied, after both were scored."""
        job = self.job
        self.report(f"loading {job.base.name}")
        network = load_base(job.base, job.device)
        writes = isinstance(self.target.readout, GeneratedScore)
        if not writes:
            self.report("scoring the base")
            self.parity.add("base", self._logits(network))
        self.report("scoring the base with the adapter beside it")
        adapted = apply_adapter(network, self.adapter, job.base.decoder)
        self.parity.add("adapter", self._logits(adapted.get_base_model()))
        if writes:
            self._keep_scored()
        elif self.parity.logits["adapter"] == self.parity.logits["base"]:
            raise PublishRefused(
                f"{self.adapter.folder.name} changes no golden pair's logit: it was not trained,"
                " or is not for this base."
            )

        return adapted

    def _keep_scored(self) -> None:
        """Keep the golden pairs for which the adapter writes a score.

        The base is not asked: before stage 1 it writes none, and thinks to the bound.
        """
        scores = self.parity.logits["adapter"]
        scored = [number for number, score in enumerate(scores) if score is not None]
        if not scored:
            raise PublishRefused(
                f"{self.adapter.folder.name} writes no score for any golden pair: train it longer,"
                " or give pairs of its own data (--golden)."
            )
        self.parity.keep(scored)

    def write_merged(self, adapted: Any) -> list[GoldenPair]:
        """Merge, save in the dtype that is stored, and score each on the way; returns the golden
        pairs."""
        dtype = self.job.stored_dtype
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
        if is_portable(self.target):
            write_portable(self.target, self.draft)

        for parameter in network.parameters():
            parameter.data = parameter.data.float()
        rounded = self._logits(network)
        self.parity.add("rounded", rounded, against="merged", tolerance=ROUNDING[dtype])
        del network, adapted

        self.report("reading it again")
        reread = load_base(self.published, self.job.device)
        found = self._logits(reread, by_score_row=True)
        del reread
        self.parity.add(self._reread, found, against="rounded")
        if _has_model_card_loop(self.target):
            self.parity.add("model card", self._model_card_logits(), against="reloaded")
        if is_portable(self.target):
            self._predict()

        return self._write_golden(found)

    def write_adapter(self, adapted: Any) -> list[GoldenPair]:
        """Copy the adapter with the name of its base, and score it; returns the golden pairs."""
        del adapted
        job = self.job
        base = load_base(job.base, job.device)
        write_today(self.adapter, base, self.draft, job.base)
        self.report("reading it again")
        reread = apply_adapter(base, read_adapter(self.draft), job.base.decoder)
        found = self._logits(reread.get_base_model(), by_score_row=True)
        self.parity.add(self._reread, found, against="adapter")
        return self._write_golden(found)

    def score_by_vllm(self, golden: Sequence[GoldenPair], *, merged: bool) -> None:
        """Score by vLLM, where the job has an interpreter for it."""
        job = self.job
        if job.python_vllm is None:
            return

        self.report("asking vLLM")
        if not merged:
            rank = self.adapter.rank
            found = vllm_logits_of(
                job.python_vllm, job.base, golden, self.draft, adapter=self.draft, rank=rank
            )
            self.parity.add("vllm", found, against="reloaded")
            return

        found = vllm_logits_of(job.python_vllm, self.published, golden, self.draft)
        self.parity.add("vllm", found, against="reloaded")
        if is_portable(self.target):
            self._serve_by_vllm(job.python_vllm, golden)

    def _predict(self) -> None:
        """Score by sentence-transformers."""
        self.report("asking sentence-transformers")
        found = predicted_logits(
            self.draft,
            self.parity.pairs,
            device=self.job.device,
            document_first=self._document_first,
        )
        self.parity.add(
            "sentence-transformers", found, against="reloaded", tolerance=PREDICT_TOLERANCE
        )
        self.parity.versions["sentence-transformers"] = version("sentence-transformers")

    def _serve_by_vllm(self, python: Path, golden: Sequence[GoldenPair]) -> None:
        """Score by vLLM's server, with the command of the card."""
        self.report("asking vLLM's server")
        command = vllm_command(self.published)
        found, its_version = served_logits(
            python, self.draft, command, golden, document_first=self._document_first
        )
        self.parity.add("vllm serve", found, against="reloaded")
        self.parity.versions["vllm"] = its_version

    @property
    def _reread(self) -> str:
        """The name of the way by which the published folder is read again."""
        writes = isinstance(self.target.readout, GeneratedScore)
        return "read again" if writes else "reloaded"

    def _logits(
        self, network: PreTrainedModel, *, by_score_row: bool = False
    ) -> Sequence[float | None]:
        pairs = self.parity.pairs
        if isinstance(self.target.readout, GeneratedScore):
            written = [written_score(network, self.target, pair) for pair in pairs]
            if "adapter" in self.parity.logits and None in written:
                raise PublishRefused(
                    f"{self.job.name} writes no score for golden pair {written.index(None)}, and"
                    " the adapter beside its base writes one: publish it with --dtype float32."
                )
            return written
        return logits_of(network, self.target, pairs, by_score_row=by_score_row)

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

    def _write_golden(self, logits: Sequence[float | None]) -> list[GoldenPair]:
        golden: list[GoldenPair] = []
        for pair, logit in zip(self.parity.pairs, logits, strict=True):
            assert logit is not None, "a pair without a score was left out"
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
