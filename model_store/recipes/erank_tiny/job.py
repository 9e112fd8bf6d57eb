"""From the base to a second stage that is published, by public commands, for some seeds.

Depends on command lines and folders, not on networks. Invariant: a command whose result exists is
not run again; one that fails ends the process, and a restart continues with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean

from model_store.evaluation.nine_cells import questions
from model_store.evaluation.results import Results, read_results
from model_store.manifest import MANIFEST
from model_store.output_files import write_json
from model_store.recipes.command import run_gmr
from model_store.recipes.erank_tiny.data import example_of, write_generations, write_rows
from model_store.training.data.row_files import write_examples

SFT, GRPO = "erank-tiny-sft", "erank-tiny-grpo"
"""The shipped configurations of `gmr train`, and the names of what they leave."""
_SFT_SETTINGS = ("steps=300",)
"""With the 90 of the configuration, a tenth of the sampled answers have no valid form."""
_GRPO_SETTINGS = (
    "data.documents=5",
    "rollouts.answers=20",
    "rollouts.temperature=0.7",
    "reward.above_positive_penalty=0",
    "optimizer.learning_rate=0.00003",
)
"""Every fifth document is a positive, and a negative is only held to its number of stage 1.

With the paper's penalty for a negative above a positive, the small model ranks worse (record 0037).
"""
RESULTS = "results.json"
_RESAMPLES = 10_000

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErankJob:
    """Folders and sizes of the recipe; `sft` and `grpo` are `key=value` for `gmr train`."""

    work: Path
    base: Path
    rows: int
    queries: int
    seeds: Sequence[int]
    sft: Sequence[str]
    grpo: Sequence[str]
    report: Report

    @property
    def data(self) -> Path:
        return self.work / "data"


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean of nDCG@10 over queries and seeds before and after a stage, their difference, and
    its 95 % interval over queries."""

    before: float
    after: float
    low: float
    high: float


def run_job(job: ErankJob) -> Path:
    """Make the data, run both stages for every seed, and measure each; returns the file of
    results."""
    _write_data(job)
    sft: list[Results] = []
    grpo: list[Results] = []
    for seed in job.seeds:
        first = _stage(job, SFT, seed, job.base, (*_SFT_SETTINGS, *job.sft))
        second = _stage(job, GRPO, seed, first, (*_GRPO_SETTINGS, *job.grpo))
        sft.append(_measured(job, first))
        grpo.append(_measured(job, second))
        job.report(f"seed {seed}: {sft[-1].score:.4f} by stage 1, {grpo[-1].score:.4f} by stage 2")

    gain = gain_of(sft, grpo)
    path = job.work / RESULTS
    described = {
        "queries": job.queries,
        "seeds": list(job.seeds),
        "stage 1": [each.score for each in sft],
        "stage 2": [each.score for each in grpo],
        "gain": {"mean": gain.after - gain.before, "low": gain.low, "high": gain.high},
    }
    write_json(path, described)
    job.report(
        f"nDCG@10 {gain.before:.4f} by stage 1, {gain.after:.4f} by stage 2: a gain of"
        f" {100 * (gain.after - gain.before):.2f} [{100 * gain.low:.2f}, {100 * gain.high:.2f}]"
    )
    return path


def gain_of(before: Sequence[Results], after: Sequence[Results]) -> Gain:
    """The paired difference of two lists of results of the same queries, a result a seed.

    A query's difference is the mean over seeds; the interval resamples queries.
    """
    differences: list[float] = []
    (dataset,) = before[0].datasets
    for query in before[0].datasets[dataset]:
        own = [
            second.datasets[dataset][query] - first.datasets[dataset][query]
            for first, second in zip(before, after, strict=True)
        ]
        differences.append(fmean(own))

    rng = Random("erank/gain")
    means: list[float] = []
    for _ in range(_RESAMPLES):
        means.append(fmean(rng.choices(differences, k=len(differences))))
    means.sort()
    low, high = means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]
    return Gain(
        fmean(each.score for each in before), fmean(each.score for each in after), low, high
    )


def _write_data(job: ErankJob) -> None:
    """Rows, the teacher's generations, the answers, and the queries of the text cell."""
    rows, generations = job.data / "train.jsonl", job.data / "generations.jsonl"
    if not rows.exists():
        job.report(f"writing {job.rows} rows")
        write_rows(rows, job.rows, seed=0)
    if not generations.exists():
        write_generations(rows, generations, seed=0)
    answers = job.data / "answers.jsonl"
    if not answers.exists():
        given = ("--model", job.base, "--generations", generations)
        for line in run_gmr(job.report, "data", "answers", rows, answers, *given).splitlines():
            job.report(line)
    cell = job.data / "cell.jsonl"
    if not cell.exists():
        found = (
            example_of(f"cell/{number}", example)
            for number, example in enumerate(questions("T-T", job.queries))
        )
        write_examples(cell, found)


def _stage(job: ErankJob, name: str, seed: int, model: Path, settings: Sequence[str]) -> Path:
    """Train and publish one stage on `model`; returns the published folder."""
    published = job.work / f"{name}-{seed}"
    if (published / MANIFEST).exists():
        return published

    run = job.work / "runs" / f"{name}-{seed}"
    given = [f"model={model}", f"output={run}", f"seed={seed}"]
    given.append(f"data.train={job.data / 'train.jsonl'}")
    if name == SFT:
        given.append(f"data.answers={job.data / 'answers.jsonl'}")
    options: list[str] = []
    for setting in (*given, *settings):
        options += ["--set", setting]
    run_gmr(job.report, "train", name, *options)
    run_gmr(job.report, "publish", model, run, published)
    return published


def _measured(job: ErankJob, published: Path) -> Results:
    results = job.work / f"{published.name}.json"
    if not results.exists():
        run_gmr(job.report, "eval", published, results, "--rows", job.data / "cell.jsonl")
    return read_results(results)
