"""Exit codes of the commands: 0 success, 1 failure with one sentence, 2 wrong usage, 130
interrupted."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from model_store.commands.console import EXTRAS
from service.cli.main import app
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
PRINTERS = {"settings", "metrics"}
"""Commands that only print what the code knows: nothing can keep them from it."""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command as a tuple of words, such as ("models", "list")."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = sorted(commands())
LISTS = {"data check"}
"""Commands whose work is to list all that is wrong, a line each."""
IMPOSSIBLE: dict[str, tuple[str, ...]] = {
    "serve": ("--port", "PORT", "--model", "nothing"),
    "gateway": ("--port", "TAKEN", "--workers", "http://127.0.0.1:1"),
    "worker": ("--port", "PORT", "--model", "nothing"),
    "rerank": ("query", "nowhere.png"),
    "bulk": ("nowhere.jsonl", "out.jsonl"),
    "instructions": ("nothing",),
    "bench": ("--output", "nowhere/bench.json"),
    "keys create": ("--file", "nowhere/keys.json", "--tenant", "shop"),
    "keys list": ("--file", "nowhere.json"),
    "keys revoke": ("name", "--file", "nowhere.json"),
    "convert mbeir": ("queries.jsonl", "pool.jsonl", "out.jsonl", "--root", "."),
    "convert vidore": ("nowhere", "out.jsonl"),
    "convert msmarco": ("out.jsonl", "--triples", "nowhere.tsv"),
    "convert flagembedding": ("nowhere.jsonl", "out.jsonl"),
    "convert swift": ("nowhere.jsonl", "out.jsonl"),
    "data check": ("nowhere.jsonl",),
    "data split": ("nowhere.jsonl", "train.jsonl", "dev.jsonl"),
    "data mix": ("out.jsonl", "--source", "T-T/WebQA=nowhere.jsonl", "--partial"),
    "data sample": ("/dev/null/sample",),
    "mine": ("nowhere.jsonl", "out.jsonl", "--corpus", "nowhere.jsonl", "--margin", "0.1"),
    "train": ("nowhere.yaml",),
    "ablate": ("--base", "nothing", "--output", "out"),
    "data answers": ("nowhere.jsonl", "out.jsonl", "--model", "nothing", "--generations", "none"),
    "data feedback": ("nowhere", "out.jsonl"),
    "data forget": ("nowhere", "--request-id", "rr-0"),
    "feedback": ("rr-0", "--clicked", "0", "--url", "http://127.0.0.1:1"),
    "doctor": ("--url", "http://127.0.0.1:1"),
    "calibrate": ("nothing", "nowhere.jsonl"),
    "eval benchmark": ("--task", "nothing", "--run", "run"),
    "eval checkpoint": ("gmr-tiny", "nowhere/results.json"),
    "eval compare": ("nowhere", "nothing"),
    "eval judgements": ("nowhere", "--output", "out", "--url-b", "http://127.0.0.1:1"),
    "eval report": ("nowhere",),
    "eval tasks": ("nothing",),
    "publish": ("nothing", "run", "out"),
    "models inspect": ("nothing",),
    "models list": ("--registry", "nope://x"),
    "models show": ("nothing",),
    "models verify": ("nothing",),
    "models pull": ("nothing",),
    "models promote": ("nothing", "0123456789", "--registry", "."),
    "models rollback": ("nothing", "--registry", "."),
    "size": ("nothing",),
}
"""Arguments with which a command is used as it should be, and cannot do it."""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder, without the settings of other tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("RERANK_DRAIN_SECONDS", "RERANK_REGISTRY", "RERANK_MODEL", "RERANK_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    port = free_port()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield port


def test_every_command_has_a_case() -> None:
    assert {" ".join(words) for words in COMMANDS} - PRINTERS == set(IMPOSSIBLE)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_command_that_cannot_do_it_ends_with_1_and_one_sentence(name: str, taken: int) -> None:
    ports = {"PORT": str(free_port()), "TAKEN": str(taken)}
    done = CliRunner().invoke(
        app, [*name.split(), *(ports.get(word, word) for word in IMPOSSIBLE[name])]
    )
    assert done.exit_code == 1, done.output
    *before, sentence = done.stderr.splitlines()
    assert not before or name in LISTS, done.stderr
    assert sentence.endswith("."), sentence
    assert done.stdout == "" or name in LISTS
    assert list(Path.cwd().iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_wrong_option_ends_with_2_before_anything_is_done(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--no-such-option"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--no-such-option" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--host", "0.0.0.0"),
        ("gateway",),
        ("rerank",),
        ("rerank", " ", "document"),
        ("rerank", "\udcff", "document"),
        ("rerank", ".", "query"),
        ("rerank", "query", "document", "--url", "127.0.0.1:8000"),
        ("rerank", "query", "document", "--instruction", "ArguAnna"),
        ("bench", "--workloads", "X"),
        ("size", "--gpu", "abacus"),
        ("models", "rollback", "name"),
        ("publish", "gmr-tiny", "run", "out", "--dtype", "int3"),
        ("keys", "create", "--file", "keys.json", "--tenant", "no spaces"),
        ("convert", "msmarco", "out.jsonl"),
        ("data", "mix", "out.jsonl", "--source", "what"),
        (
            "mine",
            "rows.jsonl",
            "out.jsonl",
            "--corpus",
            "c.jsonl",
            "--margin",
            "0.1",
            "--shard",
            "3",
        ),
        (
            "mine",
            "rows.jsonl",
            "out.jsonl",
            "--corpus",
            "c.jsonl",
            "--margin",
            "0.1",
            "--retriever",
            "guess",
        ),
        ("ablate", "--base", "gmr-tiny", "--output", "out", "--only", "nothing"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_whatever_the_machine_holds_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (
            ModuleNotFoundError(name="faiss.swig"),
            1,
            "needs faiss: pip install 'gmr-rerank[train]'.",
        ),
        (PermissionError(13, "", "rows.jsonl"), 1, "rows.jsonl: Permission denied."),
        (OSError(28, ""), 1, "No space left on device."),
        (MemoryError(), 1, "There is not enough memory."),
        (
            ZeroDivisionError("x"),
            1,
            "This is a defect of gmr: please report it, with the lines above.",
        ),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
def test_what_a_command_does_not_answer_itself(
    error: BaseException,
    code: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raising(**_: object) -> None:
        raise error

    root: Any = get_command(app)
    for words in COMMANDS:
        command = root
        for word in words:
            command = command.commands[word]
        monkeypatch.setattr(command, "callback", raising)
        monkeypatch.setattr(command, "params", [])
        with pytest.raises(SystemExit) as end:
            root.main(list(words), prog_name="gmr")
        said = capsys.readouterr().err
        assert end.value.code == code, words
        assert said.strip().endswith(last), words
        assert ("Traceback" in said) == isinstance(error, ZeroDivisionError), words


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--model", "nothing"),
        ("worker", "--model", "nothing"),
        ("bench", "--model", "nothing"),
        ("eval", "nothing", "results.json"),
        ("publish", "nothing", "run", "out"),
        ("ablate", "--base", "nothing", "--output", "out"),
        ("models", "inspect", "nothing"),
        ("models", "pull", "nothing"),
    ],
    ids=" ".join,
)
def test_an_unknown_model_is_refused_before_torch_is_imported(arguments: tuple[str, ...]) -> None:
    port = ("--port", str(free_port())) if arguments[0] in ("serve", "worker") else ()
    script = "import sys; sys.modules['torch'] = None; from service.cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, *port],
        capture_output=True,
        text=True,
        check=False,
        env=_without_settings(),
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "There is no model 'nothing': it is no folder, no hub id, and none of gmr-mini,"
            " gmr-tiny, gmr-tiny-d."
        ],
    )


def _without_settings() -> dict[str, str]:
    place = {"PYTHONPATH": str(ROOT)}
    return {
        name: value for name, value in os.environ.items() if not name.startswith("RERANK_")
    } | place


@pytest.mark.slow
def test_ctrl_c_while_the_engine_is_being_loaded_ends_with_130() -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(free_port())]
    assert interrupted(command, after="loading the engine's libraries") == (130, False)


def interrupted(command: list[str], *, after: str) -> tuple[int, bool]:
    """The exit code of a process that gets SIGINT after its first output, as a shell reports it,
    and whether it printed a traceback."""
    # what a shell starts in the background ignores SIGINT, and so do its children
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        output = ""
        for line in process.stderr:
            output += line
            if after in line:
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                break

        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()

    code = process.returncode
    if code == -signal.SIGINT:
        # Python ends itself by the signal if it came within `exec` of a text, as of a dataclass
        code = 128 + signal.SIGINT  # as a shell reports it
    return code, "Traceback" in output + rest


def project() -> dict[str, Any]:
    content = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    read: dict[str, Any] = tomllib.loads(content)["project"]
    return read


def imported() -> set[str]:
    """The modules that the packages import, without their submodules."""
    pattern = re.compile(r"^ *(?:from|import) ([a-z_0-9]+)", re.MULTILINE)
    found: set[str] = set()
    for package in ("service", "model_store"):
        for path in (ROOT / package).rglob("*.py"):
            found.update(pattern.findall(path.read_text(encoding="utf-8")))
    return found


def test_a_module_that_an_extra_brings_is_named_with_it() -> None:
    """One that is not named is reported as a defect where it is missing."""
    named = {
        re.split(r"[\[<>=]", requirement)[0]
        for extra, requirements in project()["optional-dependencies"].items()
        for requirement in requirements
        if extra != "dev"
    }
    distributions = packages_distributions()
    for module in imported():
        brought = {name.lower() for name in distributions.get(module, [])}
        assert module in EXTRAS or not brought & (named - {"gmr-rerank"}), module


def test_each_extra_brings_the_module_that_it_is_named_for() -> None:
    extras = project()["optional-dependencies"]
    distributions = packages_distributions()
    for module, extra in EXTRAS.items():
        named = {re.split(r"[\[<>=]", requirement)[0] for requirement in extras[extra]}
        known = {
            name.lower().replace("_", "-") for name in [module, *distributions.get(module, [])]
        }
        assert any(
            name == each or name.startswith(f"{each}-") for name in named for each in known
        ), module
