"""`gmr rerank` against a running service: what it prints, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli.main import app
from tests.conftest import CALM, Rerank, free_port

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "tests" / "pictures"
COMMAND = [sys.executable, "-m", "service.cli", "rerank"]
SORTING = [
    "Close the file.",
    "Sort the list in ascending order and return None.",
    "A circle is a round shape.",
]
QUERY = "how do I sort a list"


def gmr_rerank(server: str, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["rerank", *arguments, "--url", server], input=stdin)


def answer_of(server: str, *arguments: str, stdin: str | None = None) -> Any:
    done = gmr_rerank(server, *arguments, "--json", stdin=stdin)
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def without_cache(answer: Any) -> Any:
    """An answer without what differs from request to request."""
    for result in answer["results"]:
        result["meta"].pop("cached")
    answer["meta"].pop("cached_pairs")
    answer.pop("id")
    return answer


def test_json_is_the_services_answer(server: str, rerank: Rerank) -> None:
    asked = rerank(query=QUERY, documents=SORTING).json()
    assert without_cache(answer_of(server, QUERY, *SORTING)) == without_cache(asked)


def test_several_requests_give_one_answer(server: str) -> None:
    whole = answer_of(server, QUERY, *SORTING)
    parts = answer_of(server, QUERY, *SORTING, "--batch", "1")
    assert parts["meta"].pop("billed_units") == {"search_units": 3}
    assert whole["meta"].pop("billed_units") == {"search_units": 1}
    assert without_cache(parts) == without_cache(whole)


def test_a_pipe_gets_lines(server: str) -> None:
    lines = "\n".join([*SORTING[:2], "", "A\x1b[31m circle\tis round."])
    done = gmr_rerank(server, QUERY, stdin=lines)
    assert (done.exit_code, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {row[2] for row in rows} == {"0", "1", "2"}
    assert rows[0] == ["0.5170", "0.0681", "1", SORTING[1]]
    assert "A\N{REPLACEMENT CHARACTER}[31m circle is round." in [row[3] for row in rows]


def test_pictures_have_their_paths_as_ids(server: str) -> None:
    answer = answer_of(server, "two red circles", str(PICTURES), "--top", "2")
    assert len(answer["results"]) == 2
    assert answer["results"][0]["id"] == str(PICTURES / "two-red-circles.png")


def test_a_query_may_be_a_picture_and_a_text(server: str, tmp_path: Path) -> None:
    picture = PICTURES / "blue-square.png"
    alone = answer_of(server, "--query-image", str(picture), str(PICTURES))
    assert alone["results"][0]["id"] == str(picture)

    rows = [
        {"id": "a", "text": "It weighs 40 kilograms.", "image": "three-green-stars.png"},
        {"id": "b", "text": "It weighs 12 kilograms.", "image": "blue-square.png"},
        {"id": "c", "text": "It belongs to Clara.", "image": "blue-square.png"},
    ]
    for row in rows:
        row["image"] = os.path.relpath(PICTURES / row["image"], tmp_path)
    file = tmp_path / "cards.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    fused = answer_of(server, "How heavy is it?", "--query-image", str(picture), str(file))
    assert [result["id"] for result in fused["results"]] == ["b", "c", "a"]


def test_an_instruction_may_be_named(server: str, rerank: Rerank) -> None:
    instruction = "Find a Wikipedia image that answers this question."
    asked = rerank(query=QUERY, documents=SORTING, instruction=instruction).json()
    for given in ("WebQA", "t-it/webqa", instruction):
        answer = answer_of(server, QUERY, *SORTING, "--instruction", given)
        assert without_cache(answer)["results"] == without_cache(asked | {})["results"]
        asked = rerank(query=QUERY, documents=SORTING, instruction=instruction).json()


def test_a_document_without_a_score_is_listed_and_the_rest_is_ranked(
    server: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    other = tmp_path / "other.png"
    other.write_text("text", encoding="utf-8")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"titel": "x"}\n', encoding="utf-8")

    done = gmr_rerank(server, QUERY, str(bad), str(other), str(rows), *SORTING, "--json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert [result["index"] for result in answer["results"]] == [4, 5, 3]
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (0, "invalid_image"),
        (1, "invalid_image"),
        (2, "invalid_request"),
    ]
    first, second, third, count = done.stderr.splitlines()
    assert first.startswith(f"{bad}: ")
    assert second == f"{other}: the file is not a PNG, JPEG or WebP picture."
    assert third.startswith(f"{rows}, line 1: titel ")
    assert count == "3 of 6 documents have no score."


def test_the_commands_of_the_page_work(server: str) -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n([^`]*)```", page)
    commands = [line for line in block.splitlines() if "--model" not in line]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=ROOT,
            env=os.environ | {"RERANK_URL": server, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
    assert len(commands) == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("q", "d", "--model", "nope"), "No such model is served here. You may use: gmr-tiny."),
        (("q",), "Standard input has no documents."),
        (("q", "--query-image", __file__, "d"), f"{__file__}: the file is not a PNG, JPEG or"),
        (("q", "d", "--key-file", "nowhere"), "nowhere: No such file or directory."),
    ],
    ids=["model", "stdin", "picture", "key"],
)
def test_what_cannot_be_done_is_one_sentence(
    server: str, arguments: tuple[str, ...], sentence: str
) -> None:
    done = gmr_rerank(server, *arguments, stdin="")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


def test_without_a_server_there_is_advice() -> None:
    done = CliRunner().invoke(
        app, ["rerank", "q", "d"], env={"RERANK_URL": f"http://127.0.0.1:{free_port()}"}
    )
    assert done.exit_code == 1
    assert "Start one with `gmr serve`, give --url, or rank in this process" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tests", "q"), "The query comes before the documents"),
        (("--query-image", "x.png", "y.png"), "y.png: No such file or directory"),
    ],
)
def test_an_order_of_arguments_that_could_mean_both_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tests").mkdir()
    done = CliRunner().invoke(app, ["rerank", *arguments])
    assert done.exit_code in (1, 2)
    assert words in done.stderr


def on_terminal(command: list[str], **environment: str) -> tuple[int, str]:
    """The exit code and the output of a command on a terminal of 100 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    colours = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=os.environ | colours | environment
    )
    os.close(its)
    output = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:
            break
        if not piece:
            break
        output += piece
    os.close(ours)
    return process.wait(timeout=60), output.decode()


def plain(output: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def test_a_terminal_gets_a_table_with_bars_and_pictures(server: str) -> None:
    code, output = on_terminal(
        [*COMMAND, "two red circles", str(PICTURES), "\x1b]0;title\x07text"], RERANK_URL=server
    )
    assert code == 0
    assert f"Asking {server}" in plain(output)
    shown = plain(output).splitlines()
    (header,) = [line for line in shown if re.match(r" +# +score +logit +document", line)]
    best = shown[shown.index(header) + 1]
    assert re.match(r" 1 +█{7,} *[▏▎▍▌▋▊▉█]? *0\.979 +3\.83 ", best)
    assert output.count("▀") > 6 * 12
    assert shown[-1].startswith("7 documents, ")
    assert "\x1b]0" not in output, "no document controls the terminal"

    _, output = on_terminal(
        [*COMMAND, "two red circles", str(PICTURES), "--no-thumbnails"], RERANK_URL=server
    )
    assert "▀" not in output


def test_a_terminal_that_pipes_nothing_in_is_told_so(server: str) -> None:
    code, output = on_terminal([*COMMAND, "query"], RERANK_URL=server)
    assert code == 2
    assert output.strip() == (
        "There are no documents: give texts, files or folders, or pipe them in."
    )


def test_ctrl_c_ends_a_call_with_130() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(60)
        process = subprocess.Popen(
            ["env", "--default-signal=INT", *COMMAND, "query", "document"],
            env=os.environ | {"RERANK_URL": f"http://127.0.0.1:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4).decode() == "GET "
            process.send_signal(signal.SIGINT)
            output, said = process.communicate(timeout=60)
    assert (process.returncode, output, said.strip()) == (130, "", "Interrupted.")


@pytest.mark.slow
def test_a_model_in_this_process_ranks_as_a_service_does(server: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RERANK_URL"}
    command = [*COMMAND, QUERY, *SORTING, "--json", "--model"]
    done = subprocess.run(
        [*command, "gmr-tiny"],
        env=environment | CALM,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ours, asked = json.loads(done.stdout), answer_of(server, QUERY, *SORTING)
    assert without_cache(ours) == without_cache(asked)

    failed = subprocess.run(
        [*command, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.splitlines()[-1] == (
        f"{tmp_path} cannot be served: the lines above say why."
    )
