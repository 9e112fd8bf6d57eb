"""Hub models are pulled at a pinned commit, whole, and once; the hub is an HTTP server on
loopback."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants

from model_store.checkpoint import Checkpoint, resolve
from model_store.golden import read_golden
from model_store.inspection.inspection import find, inspect_checkpoint
from model_store.manifest import CheckpointUnusable
from tests.conftest import TINY, free_port, running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "vec-ai/lychee-rerank-mm"
PLAIN = ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")


class Hub(ThreadingHTTPServer):
    """One model at one commit, as a model hub serves it."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.requested: list[str] = []
        self.failure = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        self.server.requested.append(self.path.split("?")[0])

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if self.server.failure == "500":
            self.reply(500)
        elif found := re.fullmatch(rf"{MODEL}/resolve/{COMMIT}/(.+)", path):
            self.reply_file(found[1])
        elif not path.startswith(f"api/models/{MODEL}/"):
            self.reply(404, code="RepoNotFound")
        elif path == f"api/models/{MODEL}/tree/{COMMIT}":
            self.reply(200, json.dumps(self.entries()).encode())
        else:
            self.reply(404, code="RevisionNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def entries(self) -> list[dict[str, object]]:
        """The files of the repository, as the hub lists them."""
        entries: list[dict[str, object]] = []
        for path in self.server.folder.rglob("*"):
            if path.is_file():
                name = path.relative_to(self.server.folder).as_posix()
                size = path.stat().st_size
                entries.append({"type": "file", "path": name, "size": size, "oid": "0"})
        return entries

    def reply_file(self, name: str) -> None:
        body = (self.server.folder / name).read_bytes()
        self.reply(200, body, etag=hashlib.sha256(body).hexdigest())

    def reply(self, status: int, body: bytes = b"", code: str = "", etag: str = "") -> None:
        self.send_response(status)
        headers = {
            "Content-Length": str(len(body)),
            "X-Repo-Commit": COMMIT,
            "X-Error-Code": code,
            "ETag": etag and f'"{etag}"',
        }
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "GET":
            return
        if self.server.failure == "cut" and etag:
            body = body[: len(body) // 2]
        self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a released model: no manifest, a README, and a file of another framework."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in PLAIN:
        shutil.copy(TINY / name, folder / name)
    for name in ("README.md", "pytorch_model.bin", ".gitattributes"):
        (folder / name).write_bytes(b"not wanted")
    with Hub(folder) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield hub
        hub.shutdown()
        thread.join()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client tries again without a pause."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def publish(hub: Hub) -> None:
    """Put gmr-tiny, with its manifest, into the hub's repository."""
    shutil.rmtree(hub.folder)
    shutil.copytree(TINY, hub.folder)


def pull(cache: Path, name: str = MODEL, revision: str | None = COMMIT) -> Checkpoint:
    return resolve(name, revision=revision, cache=cache / "cache")


def refusal(cache: Path, name: str = MODEL, revision: str | None = COMMIT) -> str:
    with pytest.raises(CheckpointUnusable) as caught:
        pull(cache, name, revision)
    sentence = str(caught.value)
    assert re.fullmatch(r"[^\n]+\.", sentence)
    assert str(cache) not in sentence
    assert "http" not in sentence.lower().replace("httperror", "")
    return sentence


def test_a_released_model_is_pulled_and_described(hub: Hub, tmp_path: Path) -> None:
    checkpoint = pull(tmp_path)
    assert checkpoint.name == checkpoint.manifest.name == MODEL
    assert set(checkpoint.manifest.files) == set(PLAIN)
    assert checkpoint.family.label_ids == resolve("gmr-tiny").family.label_ids
    for name in PLAIN:
        assert (checkpoint.folder / name).read_bytes() == (TINY / name).read_bytes()


def test_only_the_files_that_serving_reads_are_pulled(hub: Hub, tmp_path: Path) -> None:
    assert {path.name for path in pull(tmp_path).folder.iterdir()} == set(PLAIN)

    unwanted = ("README.md", ".bin", ".gitattributes")
    assert not [path for path in hub.requested if path.endswith(unwanted)]


@pytest.mark.parametrize("published", [False, True])
def test_a_description_needs_no_weights_of_a_hub(
    hub: Hub, tmp_path: Path, *, published: bool
) -> None:
    if published:
        publish(hub)
    checkpoint = find(MODEL, revision=COMMIT, cache=tmp_path / "cache")
    assert not [path for path in hub.requested if path.endswith(".safetensors")]

    inspection = inspect_checkpoint(checkpoint)
    assert inspection.weights is None
    assert inspection.weights_refusal
    assert inspection.family == "gmr"
    assert inspection.golden_pairs == (len(read_golden(TINY)) if published else 0)
    assert pull(tmp_path).folder == checkpoint.folder
    described = inspect_checkpoint(find(MODEL, revision=COMMIT, cache=tmp_path / "cache"))
    assert described.weights
    assert described.digest == pull(tmp_path).digest


def test_its_digest_is_that_of_the_same_files_in_a_folder(hub: Hub, tmp_path: Path) -> None:
    checkpoint = pull(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in PLAIN:
        shutil.copy(hub.folder / name, folder / name)

    assert checkpoint.digest == resolve(str(folder)).digest


def test_a_published_checkpoint_is_pulled_with_its_golden_pairs(hub: Hub, tmp_path: Path) -> None:
    publish(hub)
    checkpoint = pull(tmp_path)
    assert checkpoint.name == MODEL
    assert checkpoint.digest == resolve("gmr-tiny").digest
    assert len(read_golden(checkpoint.folder)) == len(read_golden(TINY)) > 0


def test_a_published_checkpoint_with_a_changed_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    publish(hub)
    with (hub.folder / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert "model.safetensors is not the file that was published" in refusal(tmp_path)


def test_a_pulled_model_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    before = pull(tmp_path).digest
    hub.requested.clear()
    hub.failure = "500"
    assert pull(tmp_path).digest == before
    assert hub.requested == []


def test_a_pulled_model_serves_offline(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pull(tmp_path).digest
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(tmp_path).digest == before
    assert "cannot be had from the hub" in refusal(tmp_path / "another folder")


@pytest.mark.parametrize(
    "revision",
    [
        None,
        "",
        "main",
        "v1.0",
        COMMIT[:39],
        COMMIT + "0",
        COMMIT.upper(),
        COMMIT[:39] + "\n",
        "../x",
    ],
)
def test_a_revision_that_is_no_commit_is_refused_without_a_request(
    hub: Hub, tmp_path: Path, revision: str | None
) -> None:
    assert "RERANK_MODEL_REVISION" in refusal(tmp_path, revision=revision)
    assert hub.requested == []


def test_a_commit_that_the_hub_does_not_have_is_refused(hub: Hub, tmp_path: Path) -> None:
    wrong = "f" * 40
    assert refusal(tmp_path, revision=wrong).startswith(
        f"{MODEL} at {wrong} cannot be had from the hub"
    )


@pytest.mark.parametrize("name", ["vec-ai/nothing", "vec ai/lychee", "a/b--c", "-a/b"])
def test_a_model_that_the_hub_does_not_have_is_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path, name).startswith(f"{name} at {COMMIT} cannot be had from the hub")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("failure", ["500", "cut"])
def test_a_hub_that_fails_is_one_sentence(hub: Hub, tmp_path: Path, failure: str) -> None:
    hub.failure = failure
    assert "cannot be had from the hub" in refusal(tmp_path)
    hub.failure = ""
    assert pull(tmp_path).digest


@pytest.mark.usefixtures("at_once")
def test_a_hub_that_is_down_is_one_sentence_and_nothing_else(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert refusal(tmp_path).endswith(
        "cannot be had from the hub: the hub is not reached from here, and the model is not in the"
        " cache."
    )
    assert not caplog.records
    assert "Retrying" not in capfd.readouterr().err


def test_a_missing_commit_and_a_missing_model_have_sentences_of_their_own(
    hub: Hub, tmp_path: Path
) -> None:
    assert "the hub has no such commit of it" in refusal(tmp_path, revision="f" * 40)
    assert "the hub has no such model" in refusal(tmp_path, "vec-ai/nothing")


@pytest.mark.parametrize(
    ("missing", "named"), [("config.json", "config.json"), ("model.safetensors", "safetensors")]
)
def test_a_model_without_a_file_that_serving_needs_is_refused(
    hub: Hub, tmp_path: Path, missing: str, named: str
) -> None:
    (hub.folder / missing).unlink()
    assert named in refusal(tmp_path)


@pytest.mark.slow
def test_a_service_serves_a_hub_model(hub: Hub, tmp_path: Path) -> None:
    publish(hub)
    settings = {
        "HF_ENDPOINT": hub.url,
        "RERANK_MODEL_REVISION": COMMIT,
        "RERANK_MODEL_CACHE": str(tmp_path / "cache"),
    }
    with running(
        "serve", "--model", MODEL, port=free_port(), log=tmp_path / "log", **settings
    ) as url:
        answer = httpx.post(
            f"{url}/rerank", json={"query": "q", "documents": ["a", "b"]}, timeout=60
        ).json()

    assert answer["model"] == MODEL
    assert sorted(result["index"] for result in answer["results"]) == [0, 1]
