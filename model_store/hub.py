"""A model of a hub at a pinned commit, as a local folder.

Depends on the hub's client, not on what the files mean. Invariant: a model that cannot be had is
one sentence for the operator, and nothing is fetched but the files that loaders read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_store.manifest import WEIGHTS_SUFFIX, CheckpointUnusable

_FAILURES = {
    "LocalEntryNotFoundError": (
        "the hub is not reached from here, and the model is not in the cache"
    ),
    "RepositoryNotFoundError": (
        "the hub has no such model, or shows it to nobody without a token (HF_TOKEN)"
    ),
    "GatedRepoError": (
        "its authors want their terms accepted, and the token of an account that did (HF_TOKEN)"
    ),
    "RevisionNotFoundError": "the hub has no such commit of it",
    "HFValidationError": "a hub id has the form OWNER/NAME",
}
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "golden/*.png", "MODEL_CARD.md")


def download(name: str, revision: str, cache: Path | None, *, weights: bool = True) -> Path:
    """The folder of a hub id at a commit, 40 hex digits; raises `CheckpointUnusable`.

    Without `weights`, those that are not in the cache are left out.
    """
    from huggingface_hub import snapshot_download

    files = [file for file in _FILES if weights or not file.endswith(WEIGHTS_SUFFIX)]
    try:
        with _quiet():
            folder = snapshot_download(
                name, revision=revision, cache_dir=cache, allow_patterns=files
            )
    except Exception as error:  # errors of the client's transport pass through the client
        kind = type(error).__name__
        raise CheckpointUnusable(
            f"{name} at {revision} cannot be had from the hub: {_FAILURES.get(kind, kind)}."
        ) from None
    return Path(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hub's client, whose failure is reported once, as `CheckpointUnusable`.

    It logs each failed attempt, and twice where the process has handlers of its own.
    """
    client = logging.getLogger("huggingface_hub")
    before = client.level
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client.setLevel(before)
