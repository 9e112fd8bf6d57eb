"""An image that hangs or kills its decoder is refused without an effect on others; if it is sent
again, it is refused unopened."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_process
import psutil
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.cores import cores
from service.errors import InvalidImage, RerankError
from service.gateway.media.content import Picture
from service.gateway.media.decoders import DecodeBudget, Decoders, FairSlots
from service.gateway.media.quarantine import MAX_IMAGES, SECONDS, Quarantine
from service.wire import ImageRule, Pixels
from tests.gateway.encoded_pictures import encode, jpeg_of_scans, picture
from tests.metrics import metric_value

ROOT = Path(__file__).parents[3]
RULE = ImageRule(28, 4 * 28**2, 16 * 28**2)
SIDE = 4000
POISON = jpeg_of_scans(SIDE, 250_000)
"""Nine megabytes that libjpeg reads for minutes. Its header is refused on its way in, so here it
goes straight to a decoder."""
A_START_SECONDS = 1.0
"""Computing time that a child does not need before its first picture."""


@pytest.fixture(scope="module")
def loop() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as loop:
        yield loop


def sent(data: bytes, side: int) -> Picture:
    return Picture(data, hashlib.sha256(data).digest(), ("documents", 0), (side, side))


def mates() -> list[Picture]:
    return [sent(encode(picture((40 + number, 40 + number))), 40 + number) for number in range(6)]


def decoders() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.is_running() and "anyio.to_process" in " ".join(child.cmdline())
    ]


class Bench:
    """The decoders of a gateway, with their slots and their quarantine at hand."""

    def __init__(self, *, decode_seconds: float, suspect_seconds: float = 2.0) -> None:
        self.slots, self.quarantine = FairSlots(cores()), Quarantine()
        self._decoders = Decoders(
            decode_seconds=decode_seconds,
            suspect_seconds=suspect_seconds,
            quarantine=self.quarantine,
            slots=self.slots,
        )

    async def decode(self, pictures: list[Picture]) -> dict[bytes, Pixels | RerankError]:
        return await self._decoders.decode(pictures, RULE, DecodeBudget("", 1_000.0))


def is_refused_unopened(loop: BlockingPortal, bench: Bench, poison: Picture) -> bool:
    """Also while no child process is free, because it does not need one."""
    before = metric_value("rerank_quarantined_images_total")

    async def decode_without_children() -> list[Pixels | RerankError]:
        async with AsyncExitStack() as taken:
            for _ in range(bench.slots.total):
                await taken.enter_async_context(bench.slots.slot("", 1))
            with anyio.fail_after(30):  # an image that is opened after all would wait for ever
                return list((await bench.decode([poison])).values())

    (outcome,) = loop.call(decode_without_children)
    refused = metric_value("rerank_quarantined_images_total") - before
    return isinstance(outcome, InvalidImage) and refused == 1


@pytest.mark.slow
def test_a_picture_that_hangs_its_decoder(loop: BlockingPortal) -> None:
    bench, poison = Bench(decode_seconds=3), sent(POISON, SIDE)
    outcome = loop.call(bench.decode, [*mates()[:3], poison, *mates()[3:]])
    assert isinstance(outcome.pop(poison.digest), InvalidImage)
    assert [isinstance(each, Pixels) for each in outcome.values()] == [True] * 6
    assert is_refused_unopened(loop, bench, poison)
    assert all(isinstance(each, Pixels) for each in loop.call(bench.decode, mates()).values())


@pytest.mark.slow
def test_a_picture_that_brings_its_decoder_down(loop: BlockingPortal) -> None:
    """As with a bug in a C library: each child process that decodes the image is killed during
    its work."""
    bench, poison = Bench(decode_seconds=60), sent(POISON, SIDE)
    idle = loop.call(anyio.to_process.run_sync, os.getpid)
    done = threading.Event()

    def kill_who_decodes() -> None:
        while not done.wait(0.02):
            for child in decoders():
                if (
                    child.status() != psutil.STATUS_ZOMBIE
                    and child.cpu_times().user > A_START_SECONDS
                ):
                    os.kill(child.pid, signal.SIGKILL)

    killing = threading.Thread(target=kill_who_decodes)
    killing.start()
    try:
        (outcome,) = loop.call(bench.decode, [poison]).values()
    finally:
        done.set()
        killing.join()
    assert isinstance(outcome, InvalidImage)
    assert outcome.message == InvalidImage.message  # and not that it took too long
    assert not psutil.pid_exists(idle)
    assert is_refused_unopened(loop, bench, poison)
    assert all(isinstance(each, Pixels) for each in loop.call(bench.decode, mates()).values())


@pytest.mark.slow
def test_a_picture_whose_request_was_given_up_late(loop: BlockingPortal) -> None:
    bench, poison = Bench(decode_seconds=60, suspect_seconds=0.3), sent(POISON, SIDE)

    async def given_up(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await bench.decode([poison])

    loop.call(given_up, 0.0)
    assert bench.quarantine.refusal(poison.digest) is None
    loop.call(given_up, 1.5)
    assert is_refused_unopened(loop, bench, poison)


def test_what_was_quarantined_is_let_in_again_after_a_while() -> None:
    now = 0.0
    held = Quarantine(lambda: now)
    assert held.add(b"a", "Why.").message == "Why."
    now = SECONDS - 1
    refusal = held.refusal(b"a")
    assert refusal is not None
    assert refusal.message == "Why."
    assert held.refusal(b"b") is None
    now = SECONDS
    assert held.refusal(b"a") is None


def test_no_more_than_so_many_are_remembered() -> None:
    held = Quarantine(lambda: 0.0)
    for number in range(MAX_IMAGES + 1):
        held.add(b"%d" % number, "Why.")
    held.add(b"1", "Again.")
    held.add(b"new", "Why.")
    assert [number for number in range(MAX_IMAGES + 1) if not held.refusal(b"%d" % number)] == [
        0,
        2,
    ]


def test_a_child_that_dies_while_it_is_started_does_not_end_the_gateway(
    loop: BlockingPortal,
) -> None:
    async def start_twice() -> None:
        pool = Decoders()
        await pool.warm_up()
        # the event loop has had no turn to see that they are dead
        for child in decoders():
            os.kill(child.pid, signal.SIGKILL)
        await pool.warm_up()

    loop.call(start_twice)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.1])
def test_a_loop_that_ends_while_children_start_waits_for_them(
    seconds: float, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""\
import asyncio
import time
from service.gateway.media.decoders import Decoders

async def cut_short():
    starting = asyncio.create_task(Decoders().warm_up())
    await asyncio.sleep({seconds})
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)

if __name__ == "__main__":  # children import the program, too
    asyncio.run(cut_short())
    time.sleep(0.3)  # until a child that was lost has ended, of which the loop would warn
""",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
