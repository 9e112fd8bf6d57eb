"""Each block of docs/clients.md, run in each case: served, refused, out of quota, no worker."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clients.environments import Outcome, Run, run_blocks
from tests.clients.page import BLOCKS, PRINTED_URL, Block, page_names
from tests.clients.targets import BUSY, FREE, LIMITED, WRONG_KEY, Targets, key_of, running

CASES = ("served", "twice", "400", "401", "404", "429", "503", "pictures as text")
QUOTAS = {"twice": LIMITED, "429": BUSY}
OTHERS = ("debtor", "early")
"""Clients of tests of their own, which have keys, too."""
EMPTY_TEXT = ""
NO_PICTURE = "data:image/png;base64,AAAA"

Outcomes = dict[tuple[str, str], Outcome]
"""By the name of a block, and the case."""


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    clients = [*(block.name for block in BLOCKS), *OTHERS]
    with running(tmp_path_factory.mktemp("targets"), clients) as started:
        yield started


@pytest.fixture(scope="session")
def outcomes(targets: Targets, server: str, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The outcome of each block in each case, all environments at the same time."""
    runs: dict[str, list[Run]] = {}
    for block in BLOCKS:
        asked = [_run(block, case, targets, server) for case in CASES if applies(block, case)]
        runs.setdefault(block.environment, []).extend(asked)

    with ThreadPoolExecutor() as threads:
        started = [
            threads.submit(run_blocks, environment, asked, tmp_path_factory.mktemp(environment))
            for environment, asked in runs.items()
        ]

    found: Outcomes = {}
    for future in started:
        for name, outcome in future.result().items():
            block_name, _, case = name.partition("+")
            found[block_name, case] = outcome
    return found


def applies(block: Block, case: str) -> bool:
    """True if a block has what the case changes."""
    if case == "pictures as text":
        return block.name == "ai-sdk"  # it writes objects as JSON
    if case == "400":
        return not block.reads_files
    if case == "404":
        return "gmr-tiny" in block.code
    return block.sends_key or case in ("served", "401")


def _run(block: Block, case: str, targets: Targets, server: str) -> Run:
    """A block with the URL, key, model and documents of a case."""
    gmr = targets.empty if case == "503" else targets.answering
    url = gmr.url if block.sends_key or case == "401" else server
    key = WRONG_KEY if case == "401" else key_of(block.name, QUOTAS.get(case, FREE))
    code = block.code.replace(PRINTED_URL, url).replace('KEY"', f'{key}"')
    if case == "404":
        code = code.replace("gmr-tiny", "gmr-huge")

    names = page_names()
    if case == "pictures as text":
        names["documents"] = [{"image": picture} for picture in names["pictures"]]
    if case == "400":
        names["documents"][1] = EMPTY_TEXT
        names["pictures"][1] = NO_PICTURE
    return Run(f"{block.name}+{case}", code, names, times=2 if case == "twice" else 1)
