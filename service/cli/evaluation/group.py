"""`gmr eval`: its commands, two of which need not be named.

Does not depend on what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

BENCHMARK, CHECKPOINT = "benchmark", "checkpoint"
_TASK = "--task"


class EvalCommands(TyperGroup):
    """`gmr eval --task ...` is `gmr eval benchmark --task ...`, and `gmr eval MODEL OUTPUT` is
    `gmr eval checkpoint MODEL OUTPUT`."""

    def named(self, arguments: Sequence[str]) -> list[str]:
        """The arguments after the name of the command that is meant."""
        if not arguments or arguments[0] in self.commands or arguments[0] == "--help":
            return [*arguments]
        has_task = any(each == _TASK or each.startswith(f"{_TASK}=") for each in arguments)
        return [BENCHMARK if has_task else CHECKPOINT, *arguments]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as a group does."""
        return super().parse_args(ctx, self.named(args))


evaluations = typer.Typer(
    name="eval",
    cls=EvalCommands,
    no_args_is_help=True,
    help=(
        "Measure the quality of a ranking: of a service on a benchmark, or of a checkpoint.\n\n"
        "`gmr eval --task NAME ...` is `gmr eval benchmark --task NAME ...`, and"
        " `gmr eval MODEL OUTPUT` is `gmr eval checkpoint MODEL OUTPUT`."
    ),
)
