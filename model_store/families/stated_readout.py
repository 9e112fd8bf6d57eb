"""The read-out of a checkpoint whose prompt is a template: the one that its manifest names, held to
its network and to the labels that sentence-transformers' files state.

Depends on names and ids, not on weights. Invariant: no checkpoint is read by labels or by a head
that its own files contradict.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_store.families.readout import SCORE_HEAD, ReadOut, ScoreHead
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable, Manifest

LOGIT_SCORE = "1_LogitScore/config.json"
_CONVERTED = "ForSequenceClassification"


def is_converted(architecture: str) -> bool:
    """True for a network whose labels' rows were reduced to a head of one score."""
    return architecture.endswith(_CONVERTED)


def stated_readout(
    manifest: Manifest, family: str, readouts: Sequence[ReadOut], architecture: str
) -> ReadOut:
    """The read-out that a manifest names, or the default; raises `CheckpointUnusable`."""
    place = ""
    if is_converted(architecture):
        readouts, place = (ScoreHead(),), f" on {architecture}"
    if not manifest.read_out:
        return readouts[0]

    for readout in readouts:
        if readout.name == manifest.read_out:
            return readout
    raise CheckpointUnusable(
        f"{manifest.name}: the family {family} has no read-out {manifest.read_out!r}{place};"
        f" it has {' and '.join(repr(readout.name) for readout in readouts)}."
    )


def default_readout(architecture: str) -> str:
    """The name of the read-out that a manifest has to state; empty for the family's default."""
    return SCORE_HEAD if is_converted(architecture) else ""


def refuse_other_labels(name: str, folder: Path, family: str, label_ids: Sequence[int]) -> None:
    """Raise `CheckpointUnusable` where a folder's own files name other labels than the family's.

    Labels that are swapped give each pair the score of its opposite.
    """
    stated = read_json(name, folder, LOGIT_SCORE)
    if stated is None or not label_ids:
        return

    true_id, *rest = label_ids
    expected = (true_id, rest[0] if rest else None)
    found = (stated.get("true_token_id"), stated.get("false_token_id"))
    if found != expected:
        raise CheckpointUnusable(
            f"{name}: true_token_id and false_token_id of {LOGIT_SCORE} are {found!r:.60}, and the"
            f" labels of the family {family} are {expected!r}; RERANK_MODEL_FAMILY names the family"
            " of another reranker that is called so, sentence-transformers for what its files say."
        )
