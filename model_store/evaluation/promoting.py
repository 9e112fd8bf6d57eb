"""Puts a version in a channel, if its evaluation lets it pass. `NAME/evaluations/SHA256.json` keeps
what a promotion came with.

Knows a registry's records and results, no model. Invariant: what is promoted was whole, was
compared with the very version whose place it took, or says in its record that it was forced.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from model_store.evaluation.gate import Verdict, compare
from model_store.evaluation.results import (
    MAX_RESULT_BYTES,
    Results,
    ResultsUnusable,
    parse_results,
    read_results,
)
from model_store.registry.channels import Promotion, current, promote
from model_store.registry.storage import Storage, StoreFailed
from model_store.registry.versions import Version, check_sizes, find


class NotPromoted(Exception):
    """A candidate that the gate holds back; its text is one sentence."""


def promote_checked(
    place: Storage,
    name: str,
    digest: str,
    channel: str,
    *,
    evaluation: Path | None = None,
    baseline: Path | None = None,
    force: bool = False,
) -> tuple[Promotion, Verdict | None]:
    """Promote the version of `name` whose digest begins with `digest`.

    `evaluation` are its results; `baseline` those of the version that is in the channel now, in
    place of what it was promoted with. Raises `NotPromoted`, `ResultsUnusable` or `StoreFailed`;
    the channel then is as it was.
    """
    version = find(place, name, digest)
    check_sizes(place, version)
    before = current(place, name, channel)
    if before and before.digest == version.digest:
        raise StoreFailed(f"{name}@{channel} is {version.digest[:12]} already.")
    results = _of(read_results(evaluation), version.digest, evaluation.name) if evaluation else None
    verdict = _judge(place, version, before, results, baseline, force=force) if before else None
    record = promote(
        place,
        name,
        channel,
        version.digest,
        after=before,
        evaluation=_keep(place, name, results) if results else None,
        gate=asdict(verdict) if verdict else None,
        forced=before is not None and (verdict is None or verdict.worse),
    )
    return record, verdict


def _judge(
    place: Storage,
    version: Version,
    before: Promotion,
    results: Results | None,
    baseline: Path | None,
    *,
    force: bool,
) -> Verdict | None:
    """None where there is nothing to compare and that is forced."""
    name = version.name
    try:
        if results is None:
            raise NotPromoted(
                f"{name} has a promoted version: give the candidate's --evaluation, or --force."
            )
        if baseline:
            promoted = _of(read_results(baseline), before.digest, baseline.name)
        elif before.evaluation:
            promoted = _of(
                _kept(place, name, before.evaluation),
                before.digest,
                "what the promoted version came with",
            )
        else:
            raise NotPromoted(
                f"{name} was promoted without an evaluation: give its results as --baseline, or"
                " --force."
            )
        verdict = compare(results, promoted)
    except (NotPromoted, ResultsUnusable):
        if force:
            return None
        raise
    if verdict.worse and not force:
        raise NotPromoted(
            verdict.sentence() + " It was not promoted; --force does it all the same."
        )
    return verdict


def _of(results: Results, digest: str, file: str) -> Results:
    if results.checkpoint != f"sha256:{digest}":
        found = results.checkpoint.removeprefix("sha256:")
        raise StoreFailed(f"{file} holds the results of {found[:12]}, not of {digest[:12]}.")
    return results


def _keep(place: Storage, name: str, results: Results) -> str:
    content = results.model_dump_json().encode()
    digest = hashlib.sha256(content).hexdigest()
    place.create(f"{name}/evaluations/{digest}.json", content)
    return digest


def _kept(place: Storage, name: str, digest: str) -> Results:
    content = place.read(f"{name}/evaluations/{digest}.json", MAX_RESULT_BYTES)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise ResultsUnusable(f"The results that {name} was promoted with cannot be read.")
    return parse_results(content, "what the promoted version came with")
