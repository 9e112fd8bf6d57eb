"""From the base to the checkpoint that ships, by the commands that people type.

Knows command lines and folders, nothing of networks. Invariant: what ships is a version that was
promoted; a command that fails ends the process, and what is started again goes on with that
command.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.evaluation.nine_cells import cell_means
from model_store.evaluation.results import read_results
from model_store.manifest import MANIFEST, manifest_digest, read_manifest
from model_store.recipes.tiny.card import about
from model_store.recipes.tiny.train import Report

NAME = "gmr-tiny"
LICENCE = "Apache-2.0, as the code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained, on what, and where it goes; `settings` are `key=value` for `gmr train`."""

    work: Path
    base: Path
    data: Path
    folder: Path
    queries: int
    gate_queries: int
    python_vllm: Path | None
    settings: Sequence[str]
    report: Report

    @property
    def registry(self) -> Path:
        return self.work / "registry"


def run_job(job: Job) -> None:
    """Train, merge and measure, publish with what was measured, promote, and put the promoted
    version in the folder."""
    learnt, published = job.work / "run", job.work / "published"
    _gmr(job, "train", NAME, *_settings(job, learnt))
    figures = _measure(job, learnt)
    if not _listed(job, published):
        shutil.rmtree(published, ignore_errors=True)
        _gmr(
            job,
            "publish",
            job.base,
            learnt,
            published,
            *_story(job, figures),
            "--registry",
            job.registry,
        )
    if not _listed(job, published).endswith("production"):
        results = job.work / "results.json"
        _gmr(job, "eval", published, results, "--queries", job.gate_queries)
        digest = manifest_digest(published)
        _gmr(
            job,
            "models",
            "promote",
            NAME,
            digest,
            "--evaluation",
            results,
            "--registry",
            job.registry,
        )
    where = ("--registry", job.registry, "--cache", job.work / "cache")
    _replace(job.folder, Path(_gmr(job, "models", "pull", f"{NAME}@production", *where).strip()))
    job.report(f"{NAME}@production is in {job.folder}")


def _gmr(job: Job, *arguments: object) -> str:
    """Run a command, shown as it would be typed and told nothing by the environment; gives what it
    prints."""
    typed = [str(argument) for argument in arguments]
    job.report(f"gmr {' '.join(typed)}")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RERANK_")}
    program = str(Path(sys.executable).with_name("gmr"))
    return subprocess.run(
        [program, *typed], env=clean, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _settings(job: Job, learnt: Path) -> list[str]:
    places = {
        "model": job.base,
        "output": learnt,
        "data.train": job.data / "train.jsonl",
        "data.dev": job.data / "dev.jsonl",
    }
    settings = [*(f"{key}={place}" for key, place in places.items()), *job.settings]
    return [part for setting in settings for part in ("--set", setting)]


def _measure(job: Job, learnt: Path) -> Path:
    """Merge with nothing said, measure that, and write the card's text; gives the file of the
    figures."""
    candidate, results, figures = (
        job.work / name for name in ("candidate", "candidate.json", "figures.json")
    )
    if not (candidate / MANIFEST).exists():
        _gmr(job, "publish", job.base, learnt, candidate)
    if not figures.exists():
        _gmr(job, "eval", candidate, results, "--queries", job.queries)
        lines = cell_means(read_results(results))
        _about(job).write_text(about(lines, candidate), encoding="utf-8")
        figures.write_text(
            json.dumps({f"nDCG@10 {line.cell}": round(line.ndcg, 4) for line in lines}),
            encoding="utf-8",
        )
    return figures


def _about(job: Job) -> Path:
    return job.work / "about.md"


def _story(job: Job, figures: Path) -> list[object]:
    """What the card is to say, and who is to agree with the scores."""
    manifest = read_manifest(job.base)
    assert manifest, "a base is complete when it is here"
    with (job.data / "train.jsonl").open("rb") as file:
        rows = sum(1 for _ in file)
    data = [f"The base, {stage}: {manifest.lineage[stage]}." for stage in ("see", "words", "signs")]
    data.append(
        f"The adapter: {rows} generated rows of the nine cells, seed {manifest.lineage['seed']}."
    )
    told: list[object] = [
        "--name",
        NAME,
        "--licence",
        LICENCE,
        "--about",
        _about(job),
        "--metrics",
        figures,
    ]
    told += [part for line in data for part in ("--data", line)]
    return [*told, "--python-vllm", job.python_vllm] if job.python_vllm else told


def _listed(job: Job, published: Path) -> str:
    """The registry's line on a published folder, which ends with the channels it is in; empty where
    there is none."""
    if not (published / MANIFEST).exists():
        return ""
    start = f"{NAME}@sha256:{manifest_digest(published)[:12]} "
    listed = _gmr(job, "models", "list", "--registry", job.registry).splitlines()
    return next((line for line in listed if line.startswith(start)), "")


def _replace(folder: Path, version: Path) -> None:
    """Put a copy of a version in the place of a folder."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(version, draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
