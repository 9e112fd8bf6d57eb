"""The data of the playground is what it is said to be; its reader of image headers holds for any
bytes."""

from __future__ import annotations

import base64
import json
import re
from importlib.resources import files
from io import BytesIO
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageChops

from tests.browser.conftest import OpenPage
from tests.browser.samples import PICTURES, drawn

FOLDER = PICTURES.parent


def test_the_instructions_are_the_file_of_table_13() -> None:
    source = files("model_store.evaluation.tasks") / "tables/instructions.json"
    assert (FOLDER / "instructions.json").read_bytes() == source.read_bytes()


def test_the_pictures_are_those_of_the_generator() -> None:
    pictures = drawn()
    assert sorted(pictures) == sorted(path.name for path in PICTURES.iterdir())
    for name, picture in pictures.items():
        with Image.open(PICTURES / name) as file:
            assert ImageChops.difference(picture, file.convert("RGB")).getbbox() is None, name


def test_every_picture_of_a_sample_is_there() -> None:
    samples = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
    named: set[str] = set()
    for sample in samples:
        items = [sample["query"], *sample["documents"]]
        named |= {item["picture"] for item in items if "picture" in item}
    assert named == {path.name for path in PICTURES.iterdir()}


def test_the_page_has_no_inline_script_or_style_and_no_foreign_address() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert " style=" not in page
    assert "<style" not in page
    assert re.search(r"<[^>]*\son\w+=", page) is None
    for file in (*FOLDER.glob("*.html"), *FOLDER.glob("*.css"), *FOLDER.rglob("*.js")):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text.replace("httpx", "").replace("HTTP", ""), file.name


def encoded(kind: str, size: tuple[int, int], **options: Any) -> bytes:
    file = BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, kind, **options)
    return file.getvalue()


IMAGES = {
    "png": (encoded("PNG", (300, 7)), "image/png", 300, 7),
    "jpeg": (encoded("JPEG", (123, 45)), "image/jpeg", 123, 45),
    "progressive": (encoded("JPEG", (17, 900), progressive=True), "image/jpeg", 17, 900),
    "long exif": (encoded("JPEG", (9, 8), exif=b"Exif\0\0" + bytes(60_000)), "image/jpeg", 9, 8),
    "webp": (encoded("WEBP", (301, 77)), "image/webp", 301, 77),
    "lossless": (encoded("WEBP", (1025, 33), lossless=True), "image/webp", 1025, 33),
    "extended": (encoded("WEBP", (640, 2), exif=b"Exif\0\0II*\0"), "image/webp", 640, 2),
}
SIZES = """async files => {
  const { imageSize } = await import("/playground/image_size.js");
  return files.map(file => imageSize(Uint8Array.from(atob(file), byte => byte.charCodeAt(0))));
}"""


@pytest.fixture
async def sizes(open_page: OpenPage, server: str) -> Any:
    """A function from data to what the page's reader says of them."""
    page = await open_page(f"{server}/playground")

    async def read(images: list[bytes]) -> list[dict[str, Any] | None]:
        data = [base64.b64encode(file).decode() for file in images]
        found: list[dict[str, Any] | None] = await page.evaluate(SIZES, data)
        return found

    return read


async def test_sizes_are_read_from_headers(sizes: Any) -> None:
    found = await sizes([data for data, *_ in IMAGES.values()])
    for size, (name, (_, kind, width, height)) in zip(found, IMAGES.items(), strict=True):
        assert size == {"type": kind, "width": width, "height": height}, name


async def test_no_bytes_break_the_reader(sizes: Any) -> None:
    rng = Random(13)
    broken: list[bytes] = [b"", b"GIF89a", b"\xff\xd8" + b"\xff" * 50, b"RIFF"]
    for data, *_ in IMAGES.values():
        broken += [data[: rng.randrange(64)] for _ in range(20)]
        for _ in range(30):
            changed = bytearray(data[:400])
            changed[rng.randrange(4, len(changed))] = rng.randrange(256)
            broken.append(bytes(changed))

    for size in await sizes(broken):
        assert size is None or size["width"] >= 0
