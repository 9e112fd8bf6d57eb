"""Promotion of a version into a channel, if its evaluation passes the gate. The results that a
promotion came with stay in the registry, as `NAME/evaluations/SHA256.json`.

Does not depend on networks. Invariant: a promoted version was whole, and was compared with the very
version that it replaced, or its record has `forced`.
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
from model_store.registry.storage import RegistryFailed, Storage
from model_store.registry.versions import Version, check_sizes, find_by_digest

_PROMOTED_RESULTS = "what the promoted version came with"


class NotPromoted(Exception):
    """A candidate that the gate refuses; its text is one sentence."""


def promote_checked(
    storage: Storage,
    name: str,
    digest: str,
    channel: str,
    *,
    evaluation: Path | None = None,
    baseline: Path | None = None,
    force: bool = False,
) -> tuple[Promotion, Verdict | None]:
    """Promote the version of `name` whose digest begins with `digest`.

    `evaluation` holds its results, and `baseline` those of the version in the channel, in place of
    the results that one was promoted with. Raises `NotPromoted`, `ResultsUnusable` or
    `RegistryFailed`; the channel is then unchanged.
    """
    version = find_by_digest(storage, name, digest)
    check_sizes(storage, version)
    before = current(storage, name, channel)
    if before and before.digest == version.digest:
        raise RegistryFailed(f"{name}@{channel} is {version.digest[:12]} already.")

    results = None
    if evaluation:
        results = read_results(evaluation)
        _check_checkpoint(results, version.digest, evaluation.name)
        if results.failed and not force:
            raise NotPromoted(
                f"{evaluation.name} has {results.failed} queries without scores: run the same"
                " evaluation again, which scores those, or --force."
            )
    verdict = None
    if before:
        verdict = _compare(storage, version, before, results, baseline, force=force)

    record = promote(
        storage,
        name,
        channel,
        version.digest,
        after=before,
        evaluation=_store_results(storage, name, results) if results else None,
        gate=asdict(verdict) if verdict else None,
        forced=before is not None and (verdict is None or verdict.worse),
    )
    return record, verdict


def _compare(
    storage: Storage,
    version: Version,
    before: Promotion,
    results: Results | None,
    baseline: Path | None,
    *,
    force: bool,
) -> Verdict | None:
    """The gate's verdict; None where nothing can be compared and `force` allows that."""
    try:
        if results is None:
            raise NotPromoted(
                f"{version.name} has a promoted version: give the candidate's --evaluation, or"
                " --force."
            )
        verdict = compare(results, _promoted_results(storage, version.name, before, baseline))
    except (NotPromoted, ResultsUnusable):
        if force:
            return None
        raise

    if verdict.worse and not force:
        raise NotPromoted(
            verdict.sentence() + " It was not promoted; --force does it all the same."
        )
    return verdict


def _promoted_results(
    storage: Storage, name: str, before: Promotion, baseline: Path | None
) -> Results:
    """The results of the version in the channel."""
    if baseline:
        results, source = read_results(baseline), baseline.name
    elif before.evaluation:
        results, source = _load_results(storage, name, before.evaluation), _PROMOTED_RESULTS
    else:
        raise NotPromoted(
            f"{name} was promoted without an evaluation: give its results as --baseline, or"
            " --force."
        )

    _check_checkpoint(results, before.digest, source)
    return results


def _check_checkpoint(results: Results, digest: str, source: str) -> None:
    """Raise `RegistryFailed` where results are those of another checkpoint."""
    if results.checkpoint != f"sha256:{digest}":
        found = results.checkpoint.removeprefix("sha256:")
        raise RegistryFailed(f"{source} holds the results of {found[:12]}, not of {digest[:12]}.")


def _store_results(storage: Storage, name: str, results: Results) -> str:
    """Keep results in the registry; returns their SHA-256."""
    content = results.encode()
    digest = hashlib.sha256(content).hexdigest()
    storage.create(f"{name}/evaluations/{digest}.json", content)
    return digest


def _load_results(storage: Storage, name: str, digest: str) -> Results:
    content = storage.read(f"{name}/evaluations/{digest}.json", MAX_RESULT_BYTES)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise ResultsUnusable(f"The results that {name} was promoted with cannot be read.")
    return parse_results(content, _PROMOTED_RESULTS)
