"""The option --shard of long runs.

Does not depend on what a run does. Invariant: shards are counted from 0, in every command.
"""

from __future__ import annotations

import re

from model_store.commands.console import misuse

MAX_SHARDS = 1_000_000


def parse_shard(text: str) -> tuple[int, int]:
    """The index and the count of a shard such as "3/8"; another text ends the command."""
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    if not match or not int(match[1]) < int(match[2]) <= MAX_SHARDS:
        misuse(
            f"A --shard is I/N with I from 0 to N - 1 and N up to {MAX_SHARDS:,}, not"
            f" {text[:40]!r}."
        )
    return int(match[1]), int(match[2])
