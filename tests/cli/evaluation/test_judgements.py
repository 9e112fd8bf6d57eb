"""`gmr eval judgements`: two models on one's own queries, through real services."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_store.evaluation.runs.folder import open_run
from service.cli.main import app
from tests.conftest import free_port

COLOURS = ("red", "green", "blue")
QUERIES = 21


def judgements(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", "judgements", *map(str, arguments)])


def refused(result: Result, sentence: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert re.search(sentence, result.stderr), result.stderr
    assert re.fullmatch(r"[^\n]+\.\n", result.stderr), result.stderr


def write(folder: Path, *, queries: int = QUERIES, judged: str = "clicks") -> Path:
    """Queries for a colour; its document was shown last, and judged to be relevant."""
    folder.mkdir(exist_ok=True)
    rows: list[str] = []
    for number in range(queries):
        colour = COLOURS[number % len(COLOURS)]
        others = [{"text": f"A {each} hat."} for each in COLOURS if each != colour]
        relevant = {"text": f"A {colour} hat.", judged: 1}
        row = {"id": f"q{number}", "query": colour, "documents": [*others, relevant]}
        rows.append(json.dumps(row) + "\n")
    (folder / "judgements.jsonl").write_text("".join(rows), encoding="utf-8")
    return folder


def test_two_models_have_a_verdict_and_the_page_says_what_clicks_tell(
    server: str, tmp_path: Path
) -> None:
    folder, output = write(tmp_path / "shop"), tmp_path / "out"
    ended = judgements(folder, "--model", "gmr-tiny-d", "--url-b", server, "--output", output)

    assert ended.exit_code == 0, ended.output
    page = (output / "judgements.md").read_text(encoding="utf-8")
    assert ended.stdout.startswith(page)
    assert re.match(r"# (B is (better|worse) than A|These queries do not tell B from A) on", page)
    assert "| Order that was shown |  | 50.00 |" in page
    assert "| A: gmr-tiny-d |" in page
    assert "| B: gmr-tiny |" in page
    assert "## Clicks by position" in page
    assert "| 3 | 21 | 21 | 100.0% |" in page
    assert "A click is no judgement of relevance." in page
    for name, model in (("a", "gmr-tiny-d"), ("b", "gmr-tiny")):
        run = open_run(output / name)
        assert run.identity.model == model
        assert len(list(run.results())) == QUERIES
        assert (output / name / "report" / "report.md").exists()
    assert (output / "comparison.png").exists()

    calibrated = CliRunner().invoke(app, ["calibrate", "gmr-tiny-d", str(output / "a")])
    assert f"{QUERIES} queries, {3 * QUERIES} pairs" in calibrated.output


def test_a_model_is_not_compared_with_itself(server: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "shop", judged="grade")
    options = ("--url", server, "--url-b", server, "--output", tmp_path / "out")
    refused(judgements(folder, *options), "A and B are the same model")
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said_before_a_service_is_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop", queries=19)
    nowhere = f"http://127.0.0.1:{free_port()}"
    options = ("--url", nowhere, "--url-b", nowhere, "--output", tmp_path / "out")
    refused(judgements(folder, *options), "19 queries with a relevant document are too few")
    refused(judgements(write(folder), *options), "Nothing answers at")
    refused(judgements(folder, *options, "--metric", "dcg@10"), "is no metric", code=2)
    refused(judgements(folder, *options[:2], *options[4:]), "--url-b, --model-b, or both", code=2)

    with (folder / "judgements.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"query": "red", "documents": [{"text": "A hat.", "clicked": true}]}\n')
    refused(judgements(folder, *options), r"judgements\.jsonl:22: .*unknown field 'clicked'")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_candidates_is_refused(server: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    options = ("--model", "gmr-tiny-d", "--url-b", server, "--output", tmp_path / "out")
    refused(judgements(tmp_path / "empty", *options), "empty")


@contextmanager
def refusing_service(host: str) -> Iterator[tuple[str, set[str | None]]]:
    """A service that knows no key: its URL, and the keys that it was sent."""
    sent: set[str | None] = set()
    body = json.dumps({"code": "unauthorized", "message": "An API key is needed."}).encode()

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.add(self.headers["authorization"])
            self.send_response(401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer((host, 0), Refusing)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{listening.server_port}", sent
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def test_a_key_goes_to_another_host_only_where_it_is_named_for_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "shop")
    (tmp_path / "a").write_text("of-a")
    (tmp_path / "b").write_text("of-b")
    monkeypatch.setenv("RERANK_KEY", "of-the-environment")
    both = (folder, "--output", tmp_path / "out", "--url", server)
    with refusing_service("127.0.0.2") as (elsewhere, sent):
        for option in ((), ("--key-file", tmp_path / "a")):
            ended = judgements(*both, *option, "--url-b", elsewhere)
            refused(ended, "that of A is not sent to another host: name it with --key-file-b")
        assert sent == {None}

        refused(
            judgements(*both, "--url-b", elsewhere, "--key-file-b", tmp_path / "b"), "key is needed"
        )
        assert sent == {None, "Bearer of-b"}

    with refusing_service("127.0.0.1") as (beside, sent):
        refused(judgements(*both, "--url-b", beside), "key is needed")
        refused(judgements(*both, "--url-b", beside, "--key-file", tmp_path / "a"), "key is needed")
        assert sent == {"Bearer of-the-environment", "Bearer of-a"}


def test_it_is_plain_where_both_models_are(tmp_path: Path) -> None:
    folder, key = write(tmp_path / "shop"), tmp_path / "key"
    key.write_text("secret")
    both = (folder, "--output", tmp_path / "out", "--model-b", "gmr-tiny-d")
    refused(judgements(*both), "Without a URL both models are loaded in this process", code=2)
    alone = (*both, "--model", "gmr-tiny")
    refused(judgements(*alone, "--key-file", key), "--key-file is of a service", code=2)
    refused(judgements(*alone, "--key-file-b", key), "--key-file-b is of a service", code=2)
