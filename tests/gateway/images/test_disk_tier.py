"""Images in a folder: they outlive a gateway, and a folder that fails loses images and nothing
else."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.gateway.images.disk_tier import DiskImages
from service.gateway.images.in_use import ImagesInUse
from service.gateway.images.memory_tier import MemoryImages
from service.gateway.images.store import ImageStore
from service.gateway.media.encoded_image import EncodedImage, checked_image
from service.limits import Limits
from tests.gateway.images.storing import image, noise
from tests.gateway.stand_in import soon
from tests.metrics import metric_value

MEMORY_BYTES = 2**20
TTL = 1_000


@asynccontextmanager
async def store(
    folder: Path, *, max_bytes: int = 2**20, **options: Any
) -> AsyncIterator[ImageStore]:
    """A store with nothing in its memory, over a folder that has been swept."""
    made = {"ttl_seconds": TTL, "max_image_bytes": Limits().max_image_bytes, "seconds": 30.0}
    disk = DiskImages(folder, max_bytes=max_bytes, **(made | options))
    await disk.sweep()
    memory = MemoryImages(MEMORY_BYTES, TTL)
    in_use = ImagesInUse(MEMORY_BYTES)
    yield ImageStore(Limits(), memory, [disk], in_use, ttl_seconds=TTL, tier_seconds=30.0)
    await disk.close()


def checked(data: bytes) -> EncodedImage:
    return checked_image(data, Limits())


async def has(store: ImageStore, data: bytes, scope: str = "one") -> bool:
    """True if a request of the scope can refer to an image, which then has the very bytes."""
    digest = checked(data).digest
    found = (await store.opened(scope).load([digest], soon()))[digest]
    return isinstance(found, EncodedImage) and found.data == data


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def failures(operation: str) -> float:
    return metric_value("rerank_image_disk_failures_total", operation=operation)


async def test_images_outlive_their_gateway_within_their_scope(tmp_path: Path) -> None:
    async with store(tmp_path) as before:
        await before.put([checked(image(1)), checked(image(2))], "one")

    async with store(tmp_path) as after:
        assert await after.missing([checked(image(1)).digest], "one") == set()
        assert await has(after, image(1))
        assert await has(after, image(2))
        assert not await has(after, image(1), scope="other")
        assert not await has(after, image(1), scope="")
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


@pytest.mark.parametrize("harm", ["cut", "changed", "other", "empty", "long"])
async def test_a_file_that_is_not_the_image_is_a_miss(tmp_path: Path, harm: str) -> None:
    async with store(tmp_path) as before:
        await before.put([checked(image(1))], "one")
    (file,) = files(tmp_path)
    data = file.read_bytes()
    harmed = {
        "cut": data[:-1],
        "changed": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        "other": image(2),
        "empty": b"",
        "long": data + b"\0",
    }
    file.write_bytes(harmed[harm])
    before_rejected = metric_value("rerank_image_rejected_total", tier="disk")
    async with store(tmp_path) as after:
        assert not await has(after, image(1))
        assert metric_value("rerank_image_rejected_total", tier="disk") == before_rejected + 1

        # putting it again makes it whole
        await after.put([checked(image(1))], "one")
    async with store(tmp_path) as again:
        assert await has(again, image(1))


async def test_images_go_by_time_unless_they_are_used(tmp_path: Path) -> None:
    async with store(tmp_path) as before:
        await before.put([checked(image(1)), checked(image(2))], "one")
    for file in files(tmp_path):
        os.utime(file, (0, time.time() - TTL + 100))
    async with store(tmp_path) as used:
        assert await has(used, image(1))

    # a hundred seconds later
    for file in files(tmp_path):
        os.utime(file, (0, file.stat().st_mtime - 100))
    async with store(tmp_path) as after:
        assert await has(after, image(1))
        assert not await has(after, image(2))
    assert len(files(tmp_path)) == 1


async def test_the_folder_keeps_its_bound_over_restarts(tmp_path: Path) -> None:
    size = len(noise(0))
    for start in range(3):
        async with store(tmp_path, max_bytes=5 * size) as gateway:
            for number in range(4):
                await gateway.put([checked(noise(10 * start + number))], f"scope {number}")
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 5 * size

    async with store(tmp_path, max_bytes=2 * size) as smaller:
        assert await has(smaller, noise(23), scope="scope 3")
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 2 * size


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A folder that was named by mistake, with files that are older than any image."""
    others = [tmp_path / "notes.txt", tmp_path / "letters" / "old.png", tmp_path / ("a" * 32) / "x"]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_text("mine")
        os.utime(other, (0, 0))
    left = tmp_path / ("a" * 32) / f"{'b' * 64}.{'c' * 16}.part"
    left.write_text("a part of an image of a process that was killed")
    os.utime(left, (0, 0))

    async with store(tmp_path, max_bytes=2**20) as gateway:
        await gateway.put([checked(image(1))], "one")
    assert all(other.read_text() == "mine" for other in others)
    assert not left.exists()


async def test_a_folder_that_vanishes_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    async with store(folder) as gateway:
        await gateway.put([checked(image(1))], "one")
        shutil.rmtree(folder)
        assert await has(gateway, image(1))  # from memory
        await gateway.put([checked(image(2))], "one")
    async with store(folder) as after:
        assert await has(after, image(2))
        assert not await has(after, image(1))


async def test_without_a_usable_folder_images_are_kept_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("in the place of the folder")
    before = failures("write")
    async with store(folder, breaker_seconds=0.05) as gateway:
        for number in range(8):
            await gateway.put([checked(image(number))], "one")
            assert await has(gateway, image(number))
        assert not await has(gateway, image(9))
        assert failures("write") > before

        # it can be used again as soon as it is there
        folder.unlink()
        time.sleep(0.1)
        await gateway.put([checked(image(10))], "one")
    async with store(folder) as after:
        assert await has(after, image(10))


async def test_a_disk_that_is_full_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = failures("write")
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, hard))
    try:
        async with store(tmp_path) as gateway:
            await gateway.put([checked(noise(1)), checked(image(1))], "one")
            assert await has(gateway, noise(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failures("write") == before + 1
    assert files(tmp_path) == []


async def test_gateways_share_a_folder(tmp_path: Path) -> None:
    async with store(tmp_path) as one, store(tmp_path) as other:
        await one.put([checked(image(1))], "one")
        assert await other.missing([checked(image(1)).digest], "one") == set()
        assert await has(other, image(1))
