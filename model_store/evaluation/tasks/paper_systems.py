"""The systems of the paper's table 14, with their values on every task of MRB.

Does not depend on benchmarks. Invariant: names of tasks are those of the table `mrb`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import msgspec

BENCHMARK = "mrb"
"""The benchmark that the values are of."""


@dataclass(frozen=True, slots=True)
class PaperSystem:
    """A column of table 14. `values` are in percent, by the names of tasks; a reranker of text has
    some of them alone."""

    name: str
    """As the table has it."""
    model: str
    parameters: str
    """As table 4 has it, such as "8.29B"."""
    kind: str
    values: dict[str, float]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    benchmark: str
    source: str
    systems: list[PaperSystem]


def paper_systems(benchmark: str = BENCHMARK) -> tuple[PaperSystem, ...]:
    """The paper's systems, in its order; none for another benchmark than MRB, or a part of it."""
    if benchmark.partition(":")[0] != BENCHMARK:
        return ()
    content = files(__package__).joinpath("tables/paper_systems.json").read_bytes()
    return tuple(msgspec.json.decode(content, type=_File).systems)
