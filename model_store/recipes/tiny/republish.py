"""`python -m model_store.recipes.tiny.republish FOLDER OUTPUT`: a published checkpoint in the form
that `gmr publish` writes today.

Weights, tokenizer, golden pairs and figures are the folder's. Its base and adapter are not needed,
so a checkpoint of former days gets the form too. Depends on the parts of `gmr publish`. Invariant:
the golden pairs keep their logits, and every way that is added agrees with them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint, resolve
from model_store.golden import GoldenPair, read_golden
from model_store.manifest import MANIFEST
from model_store.training.publish.card import parity_section
from model_store.training.publish.folder import CARD, described_as, draft_of, seal
from model_store.training.publish.other_engines.cross_encoder import predicted_logits
from model_store.training.publish.other_engines.vllm_server import served_logits
from model_store.training.publish.parity import PARITY, PREDICT_TOLERANCE, Parity
from model_store.training.publish.portable import (
    HEADING,
    other_programs,
    vllm_command,
    write_portable,
)

_AFTER = "## Data"
_LAST = "## Parity"


def republish(source: Path, output: Path, *, python_vllm: Path | None = None) -> None:
    """Write the folder; raises `PublishRefused` or `CheckpointUnusable`, and then leaves no file.

    Without `python_vllm` the record keeps the logits of vLLM that it has.
    """
    checkpoint = resolve(str(source))
    pairs = read_golden(source)
    parity = _parity_of(checkpoint, pairs)
    document_first = checkpoint.family.cacheable_side == "document"
    with draft_of(output) as draft:
        shutil.copytree(
            source, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, CARD)
        )
        write_portable(checkpoint, draft)
        found = predicted_logits(draft, pairs, device="cpu", document_first=document_first)
        parity.add("sentence-transformers", found, against="reloaded", tolerance=PREDICT_TOLERANCE)
        parity.versions["sentence-transformers"] = version("sentence-transformers")
        if python_vllm:
            command = vllm_command(checkpoint)
            served, parity.versions["vllm"] = served_logits(
                python_vllm, draft, command, pairs, document_first=document_first
            )
            parity.add("vllm serve", served, against="reloaded")

        parity.write(draft)
        lineage = checkpoint.manifest.lineage | {
            "parity": {way: largest for way, (_, largest, _) in parity.deviations.items()},
            "versions": dict(parity.versions),
        }
        seal(
            draft,
            name=checkpoint.manifest.name,
            described=described_as(checkpoint.manifest),
            card=_card(checkpoint, parity),
            lineage=lineage,
        )


def _parity_of(checkpoint: Checkpoint, pairs: list[GoldenPair]) -> Parity:
    """The record of a published folder."""
    record: dict[str, Any] = json.loads((checkpoint.folder / PARITY).read_text(encoding="utf-8"))
    logits: dict[str, Sequence[float | None]] = {}
    for way in record["ways"]:
        logits[way] = [pair["logits"][way] for pair in record["pairs"]]
    deviations = {
        way: (found["against"], found["largest"], found["tolerance"])
        for way, found in record["deviations"].items()
    }
    return Parity(pairs, checkpoint.readout, logits, deviations, versions=dict(record["versions"]))


def _card(checkpoint: Checkpoint, parity: Parity) -> str:
    """The folder's card with today's sections on other programs and on parity."""
    text = (checkpoint.folder / CARD).read_text(encoding="utf-8")
    before, heading, rest = text.partition(_AFTER)
    before = before.partition(HEADING)[0]
    others = other_programs(checkpoint, parity.versions.get("vllm"))
    middle = rest.partition(_LAST)[0]
    return "\n".join([before + others[0], *others[1:], "", heading + middle]) + "\n".join(
        parity_section(parity)
    )


def main() -> None:
    """Read the command line, and publish."""
    parser = argparse.ArgumentParser(description="Publish a checkpoint again, in today's form.")
    parser.add_argument("folder", type=Path, help="a published checkpoint")
    parser.add_argument("output", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--python-vllm", type=Path, help="an interpreter that has vLLM")
    given = parser.parse_args()
    republish(given.folder, given.output, python_vllm=given.python_vllm)


if __name__ == "__main__":
    main()
