"""The checkpoint of a benchmark: one by name, one generated, or a large model without weights.

Depends on folders, not on servers. Invariant: all contenders read one folder.
"""

from __future__ import annotations

from pathlib import Path

from model_store.checkpoint import SHIPPED, Checkpoint, resolve
from service.bench.generated import generate_checkpoint, write_shapes
from service.bench.plan import GENERATED, SIZES, Plan


def make_checkpoint(plan: Plan, scratch: Path) -> Checkpoint:
    """The checkpoint that a plan names, ready to be served; raises `CheckpointUnusable`."""
    folder = scratch / "checkpoint"
    if plan.model == GENERATED:
        generate_checkpoint(SHIPPED / "gmr-tiny", folder)
        return resolve(str(folder))

    if plan.model in SIZES:
        write_shapes(SHIPPED / "gmr-tiny", folder, plan.model)
        return resolve(str(folder), weights=False)
    return resolve(plan.model)
