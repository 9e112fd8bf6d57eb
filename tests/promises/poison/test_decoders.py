"""A picture that hangs its decoder or brings it down is refused, alone; sent again, it is refused
unopened."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import anyio.to_process
import psutil
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.api import Limits
from service.errors import InvalidImage, RerankError
from service.gateway.media import decoders as decoding
from service.gateway.media.content import Picture
from service.gateway.media.quarantine import MOST, SECONDS, Quarantine
from service.gateway.media.reader import Media
from service.observability.metrics import QUARANTINED
from service.wire import ImageRule, Pixels
from tests.gateway.encoded_pictures import encode, jpeg_of_scans, picture

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


def is_refused_unopened(loop: BlockingPortal, reader: Media, poison: Picture) -> bool:
    """Even while no child is free: it waits for none."""
    before = QUARANTINED._value.get()

    async def decode_without_children() -> list[Pixels | RerankError]:
        slots = reader._decoders._children
        async with AsyncExitStack() as taken:
            for _ in range(slots.total):
                await taken.enter_async_context(slots.slot("", 1))
            with anyio.fail_after(30):  # where it is opened after all, it would wait for ever
                return list((await reader.decode([poison], RULE)).values())

    (outcome,) = loop.call(decode_without_children)
    return isinstance(outcome, InvalidImage) and QUARANTINED._value.get() == before + 1


@pytest.mark.slow
def test_a_picture_that_hangs_its_decoder(loop: BlockingPortal) -> None:
    reader, poison = Media(Limits(), decode_seconds=3), sent(POISON, SIDE)
    outcome = loop.call(reader.decode, [*mates()[:3], poison, *mates()[3:]], RULE)
    assert isinstance(outcome.pop(poison.digest), InvalidImage)
    assert [isinstance(each, Pixels) for each in outcome.values()] == [True] * 6
    assert is_refused_unopened(loop, reader, poison)
    assert all(
        isinstance(each, Pixels) for each in loop.call(reader.decode, mates(), RULE).values()
    )


@pytest.mark.slow
def test_a_picture_that_brings_its_decoder_down(loop: BlockingPortal) -> None:
    """As a bug in a C library would: each child that works on the picture is killed in the midst of
    it."""
    reader, poison = Media(Limits(), decode_seconds=60), sent(POISON, SIDE)
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
        (outcome,) = loop.call(reader.decode, [poison], RULE).values()
    finally:
        done.set()
        killing.join()
    assert isinstance(outcome, InvalidImage)
    assert outcome.message == InvalidImage.message  # and not that it took too long
    assert not psutil.pid_exists(idle)
    assert is_refused_unopened(loop, reader, poison)
    assert all(
        isinstance(each, Pixels) for each in loop.call(reader.decode, mates(), RULE).values()
    )


@pytest.mark.slow
def test_a_picture_whose_request_was_given_up_late(
    loop: BlockingPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SUSPECT_SECONDS", 0.3)
    reader, poison = Media(Limits(), decode_seconds=60), sent(POISON, SIDE)

    async def given_up(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await reader.decode([poison], RULE)

    loop.call(given_up, 0.0)
    assert reader._decoders._quarantine.refusal(poison.digest) is None
    loop.call(given_up, 1.5)
    assert is_refused_unopened(loop, reader, poison)


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
    for number in range(MOST + 1):
        held.add(b"%d" % number, "Why.")
    held.add(b"1", "Again.")
    held.add(b"new", "Why.")
    assert [number for number in range(MOST + 1) if not held.refusal(b"%d" % number)] == [0, 2]
