"""The code that the playground copies runs as it is pasted, and ranks as the page does."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import expect

from tests.browser.conftest import OpenPlayground
from tests.browser.playground import Playground
from tests.browser.samples import PICTURES

AWKWARD = [
    'It\'s "quoted", with $HOME, `date`, $(date) and a \\ backslash\\n.',
    "Zwei rote Kreise, 两个红色圆圈 \N{WHITE SMILING FACE}",
    "JSON",
]
ODD_NAME = "it's $HOME `x`.png"


async def copied(playground: Playground, language: str) -> str:
    """The code in the clipboard once Copy was pressed."""
    page = playground.page
    await page.keyboard.press("Alt+C")
    await page.get_by_role("button", name=language, exact=True).click()
    await page.get_by_role("button", name="Copy", exact=True).click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code: str = await page.evaluate("navigator.clipboard.readText()")
    assert code == await page.locator("#code").text_content()
    await page.keyboard.press("Escape")
    return code


def run_by_shell(shell: str, code: str, folder: Path, **environment: str) -> dict[str, Any]:
    """The answer that a shell command prints."""
    done = subprocess.run(
        [shell], input=code, cwd=folder, capture_output=True, text=True, check=True, env=environment
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run_by_python(code: str, folder: Path, **environment: str) -> list[str]:
    """The lines that a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.splitlines()


PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with pictures, one of a name that shells read as more than a name."""
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    shutil.copy(PICTURES / "two-red-circles.png", shapes)
    shutil.copy(PICTURES / "purple-ring.png", shapes / ODD_NAME)
    noise = Image.effect_noise((400, 400), 90)  # more base64 than an argument of a command may have
    noise.save(shapes / "noise.png")
    return tmp_path


async def test_it_reads_pictures_from_the_dropped_folder(
    open_playground: OpenPlayground, folder: Path
) -> None:
    playground = await open_playground(permissions=["clipboard-read", "clipboard-write"])
    await playground.drop(folder / "shapes")
    await playground.expect_documents(3)
    await playground.paste(AWKWARD)
    await playground.ask("two red circles")
    scores = [score.replace("<0.0001", "0.0000") for score in await playground.scores()]
    sent = playground.sent[-1]["documents"]

    command = await copied(playground, "curl")
    assert "base64," not in command
    for shell in ("bash", "sh"):
        answer = run_by_shell(shell, command, folder, **PATH)
        assert [f"{result['relevance_score']:.4f}" for result in answer["results"]] == scores
        assert answer["meta"]["cached_pairs"] == len(sent)  # the very same bytes were sent

    program = await copied(playground, "Python")
    printed = [line.split() for line in run_by_python(program, folder, **PATH)]
    assert [score for score, _ in printed] == scores
    assert [int(index) for _, index in printed] == [result["index"] for result in answer["results"]]


async def test_it_fetches_the_pictures_of_a_sample(
    open_playground: OpenPlayground, tmp_path: Path
) -> None:
    playground = await open_playground(permissions=["clipboard-read", "clipboard-write"])
    await playground.sample("Change a picture")
    answer = run_by_shell("sh", await copied(playground, "curl"), tmp_path, **PATH)
    assert answer["meta"]["cached_pairs"] == 10
    assert len(run_by_python(await copied(playground, "Python"), tmp_path, **PATH)) == 10
    assert list(tmp_path.iterdir()) == []


async def test_what_no_file_has_is_saved_first(
    open_playground: OpenPlayground, tmp_path: Path
) -> None:
    playground = await open_playground(permissions=["clipboard-read", "clipboard-write"])
    await paste_picture(playground, PICTURES / "purple-ring.png")
    await playground.expect_documents(1)
    await playground.ask("a purple ring")
    command = await copied(playground, "curl")

    await playground.page.get_by_role("button", name="Copy as code").click()
    async with playground.page.expect_download() as saving:
        await playground.page.get_by_role("link", name="Save pasted-1.png").click()
    saved = await saving.value
    await saved.save_as(tmp_path / saved.suggested_filename)
    assert run_by_shell("sh", command, tmp_path, **PATH)["meta"]["cached_pairs"] == 1


async def paste_picture(playground: Playground, path: Path) -> None:
    """Paste a picture as a screenshot is pasted: it has bytes, and no file."""
    data = base64.b64encode(path.read_bytes()).decode()
    await playground.page.evaluate(TO_CLIPBOARD, data)
    await playground.page.get_by_label("Texts to add").focus()
    await playground.page.keyboard.press("Control+V")


TO_CLIPBOARD = """data => {
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  const blob = new Blob([bytes], { type: "image/png" });
  return navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
}"""
