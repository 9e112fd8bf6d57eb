"""The wheel holds the packages' files, and serves from a fresh environment outside the checkout."""

from __future__ import annotations

import base64
import os
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.conftest import CALM, free_port
from tests.packaging.conftest import PACKAGES, checkout_files
from tests.processes import Process, eventually

pytestmark = pytest.mark.slow

ISOLATED = {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"}


def run(command: list[str], folder: Path) -> str:
    """The output of a command that is run in `folder` and succeeds."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | ISOLATED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def picture(color: str) -> str:
    """A small PNG, in base64."""
    file = BytesIO()
    Image.new("RGB", (56, 56), color).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_it_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packaged = [name for name in names if ".dist-info/" not in name]
    assert sorted(packaged) == sorted(checkout_files(*PACKAGES))


def test_the_packages_are_the_wheels_own(installed: Path, tmp_path: Path) -> None:
    code = (
        "import service, model_store; print(service.__file__); print(model_store.__file__);"
        " from model_store.checkpoint import SHIPPED; print(SHIPPED)"
    )
    printed = run([str(installed / "bin" / "python"), "-c", code], tmp_path)
    for path in printed.splitlines():
        assert Path(path).is_relative_to(installed)


def test_the_command_shows_its_help(installed: Path, tmp_path: Path) -> None:
    assert "serve" in run([str(installed / "bin" / "gmr"), "--help"], tmp_path)


def test_it_serves_texts_and_images_and_ends_when_told_to(installed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    port = free_port()
    command = [str(installed / "bin" / "gmr"), "serve", "--port", str(port)]
    with (
        Process(command, tmp_path / "log", ISOLATED | CALM, folder=empty) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):

        def ready() -> bool:
            assert server.running(), server.said()
            try:
                return client.get("/health/ready").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        eventually(ready, why=server.said)
        texts = {"query": "sort a list", "documents": ["Close the file.", "Sort the list."]}
        images = {"query": "a red shape", "documents": [{"image": picture("red")}, "blue"]}
        for body in (texts, images):
            answer = client.post("/rerank", json=body)
            assert answer.status_code == httpx.codes.OK, answer.text
            assert {result["index"] for result in answer.json()["results"]} == {0, 1}
        assert server.end() == 0, server.said()
