"""From the base to the checkpoint that ships, by public commands.

Depends on command lines and folders, not on networks. Invariant: the shipped version is one that
was promoted. A command that fails ends the process, and a restart continues with that command.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.evaluation.nine_cells import CellMeans, cell_means
from model_store.evaluation.results import read_results
from model_store.manifest import MANIFEST, manifest_digest, read_manifest
from model_store.recipes.command import run_gmr
from model_store.recipes.tiny.train import Report

CONFIG = "gmr-tiny"
"""The shipped configuration of `gmr train`."""
LICENCE = "Apache-2.0, as the code"

About = Callable[[Sequence[CellMeans], Path], str]
"""Figures of the cells, and the folder of the weights, to the first part of a card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyJob:
    """Folders and options of the recipe; `settings` are `key=value` for `gmr train`, and `stages`
    name the entries of the base's lineage that the card shows, as `rows` does those of the data."""

    name: str
    about: About
    stages: Sequence[str]
    work: Path
    base: Path
    data: Path
    folder: Path
    queries: int
    gate_queries: int
    python_vllm: Path | None
    settings: Sequence[str]
    report: Report
    rows: str = "generated rows of the nine cells"

    @property
    def registry(self) -> Path:
        return self.work / "registry"

    @property
    def story(self) -> Path:
        """The file with the first part of the card."""
        return self.work / "about.md"


def run_job(job: TinyJob) -> None:
    """Train, measure, publish with the figures, promote, and copy the promoted version."""
    run, published = job.work / "run", job.work / "published"
    run_gmr(job.report, "train", CONFIG, *_settings(job, run))
    figures = _measure(job, run)

    registry = ("--registry", job.registry)
    if not _listed(job, published):
        shutil.rmtree(published, ignore_errors=True)
        run_gmr(job.report, "publish", job.base, run, published, *_story(job, figures), *registry)

    if not _listed(job, published).endswith("production"):
        results = job.work / "results.json"
        run_gmr(job.report, "eval", published, results, "--queries", job.gate_queries)
        digest = manifest_digest(published)
        run_gmr(
            job.report, "models", "promote", job.name, digest, "--evaluation", results, *registry
        )

    cache = ("--cache", job.work / "cache")
    pulled = run_gmr(job.report, "models", "pull", f"{job.name}@production", *registry, *cache)
    _replace(job.folder, Path(pulled.strip()))
    job.report(f"{job.name}@production is in {job.folder}")


def _settings(job: TinyJob, run: Path) -> list[str]:
    """Options of `gmr train`; the job's own settings come last, and win."""
    paths = {
        "model": job.base,
        "output": run,
        "data.train": job.data / "train.jsonl",
        "data.dev": job.data / "dev.jsonl",
    }
    options: list[str] = []
    for key, path in paths.items():
        options += ["--set", f"{key}={path}"]
    for setting in job.settings:
        options += ["--set", setting]

    return options


def _measure(job: TinyJob, run: Path) -> Path:
    """Merge and measure a candidate, and write the card's text; returns the file of figures."""
    candidate = job.work / "candidate"
    results = job.work / "candidate.json"
    figures = job.work / "figures.json"
    if not (candidate / MANIFEST).exists():
        run_gmr(job.report, "publish", job.base, run, candidate)

    if not figures.exists():
        run_gmr(job.report, "eval", candidate, results, "--queries", job.queries)
        lines = cell_means(read_results(results))
        job.story.write_text(job.about(lines, candidate), encoding="utf-8")
        values = {f"nDCG@10 {line.cell}": round(line.ndcg, 4) for line in lines}
        figures.write_text(json.dumps(values), encoding="utf-8")

    return figures


def _story(job: TinyJob, figures: Path) -> list[object]:
    """Options of `gmr publish`: the content of the card, and vLLM to compare the scores with."""
    manifest = read_manifest(job.base)
    assert manifest, "a base is complete by now"

    with (job.data / "train.jsonl").open("rb") as file:
        rows = sum(1 for _ in file)

    data = [f"The base, {stage}: {manifest.lineage[stage]}." for stage in job.stages]
    data.append(f"The adapter: {rows} {job.rows}, seed {manifest.lineage['seed']}.")
    options: list[object] = ["--name", job.name, "--licence", LICENCE]
    options += ["--about", job.story, "--metrics", figures]

    for line in data:
        options += ["--data", line]
    if job.python_vllm:
        options += ["--python-vllm", job.python_vllm]

    return options


def _listed(job: TinyJob, published: Path) -> str:
    """The registry's line on a published folder, which ends with its channels; empty without
    one."""
    if not (published / MANIFEST).exists():
        return ""

    start = f"{job.name}@sha256:{manifest_digest(published)[:12]} "
    for line in run_gmr(job.report, "models", "list", "--registry", job.registry).splitlines():
        if line.startswith(start):
            return line
    return ""


def _replace(folder: Path, version: Path) -> None:
    """Replace a folder by a copy of a version."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(version, draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
