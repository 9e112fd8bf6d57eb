"""`gmr doctor` against a running service: health, a request, and golden sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from model_store.goldens.golden_set import golden_sets, read_golden_set
from service.cli.main import app
from tests.conftest import TINY, free_port

SET = "qwen3-vl-reranker-2b"


def doctor(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def report(*arguments: object, code: int = 0) -> dict[str, Any]:
    done = doctor(*arguments, "--json")
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_healthy_service_passes_every_check(server: str) -> None:
    checks = {check["name"]: check for check in report("--url", server)["checks"]}
    assert list(checks) == ["alive", "ready", "model", "digest", "golden pairs", "round trip"]
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks["model"]["found"].startswith("gmr-tiny, family gmr, torch ")
    assert checks["model"]["found"].endswith(", float32 on cpu")
    assert checks["golden pairs"]["found"] == "18 came out as published at the start"
    assert checks["round trip"]["found"].endswith("the same twice")


def test_a_folders_golden_pairs_come_out_over_http(server: str) -> None:
    """Pictures, texts and both, on either side, through the gateway."""
    found = report("--url", server, "--goldens", TINY)
    assert len(found["pairs"]) == 18
    assert {pair["status"] for pair in found["pairs"]} == {"ok"}
    assert {pair["allowed"] for pair in found["pairs"]} == {1e-3}
    assert found["checks"][-1] == {
        "name": "golden set gmr-tiny",
        "status": "ok",
        "found": "18 within what is allowed, 0 off",
    }


def test_a_score_that_is_off_makes_the_exit_code_1(server: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "mine"))
    pairs = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    pairs[3]["logit"] += 0.01
    (folder / "golden.json").write_text(json.dumps(pairs), encoding="utf-8")

    done = doctor("--url", server, "--goldens", folder)
    assert done.exit_code == 1
    assert done.stderr == f"1 of 7 checks of {server} failed.\n"
    rows = [line.split("\t") for line in done.stdout.splitlines() if line]
    off = [row for row in rows if row[0] == "failed"]
    assert off[0] == ["failed", "golden set mine", "17 within what is allowed, 1 off"]
    _, name, _, expected, found, difference, allowed, source = off[1]
    assert (name, allowed, source) == ("mine", "0.0010", f"golden.json, {pairs[3]['cell']}")
    assert float(found) - float(expected) == pytest.approx(float(difference), abs=2e-4)
    assert difference == "-0.0100"


def test_a_pair_whose_picture_is_not_here_is_skipped_with_its_address(server: str) -> None:
    """Another model's scores are off, so that the set cannot pass."""
    pairs = report("--url", server, "--goldens", SET, code=1)["pairs"]
    assert [pair["status"] for pair in pairs] == [
        "failed",
        "skipped",
        "skipped",
        "failed",
        "skipped",
    ]
    assert pairs[1]["found"] is None
    assert "give --pictures a folder with qwen-vl-demo.jpeg (https://" in pairs[1]["reason"]


def test_a_picture_that_is_given_is_sent(server: str, tmp_path: Path) -> None:
    shutil.copy(next((TINY / "golden").glob("*.png")), tmp_path / "qwen-vl-demo.jpeg")
    found = report("--url", server, "--goldens", SET, "--pictures", tmp_path, code=1)
    assert all(pair["found"] is not None for pair in found["pairs"])

    empty = tmp_path / "empty"
    empty.mkdir()
    found = report("--url", server, "--goldens", SET, "--pictures", empty, code=1)
    assert "cannot be read (No such file or directory)" in found["pairs"][1]["reason"]


def test_a_model_that_is_not_served_is_named(server: str) -> None:
    done = doctor("--url", server, "--model", "other")
    assert done.exit_code == 1
    assert "failed\tnamed model\tother: 404" in done.stdout.splitlines()
    assert "failed\tround trip\tNo such model is served here. You may use: gmr-tiny." in done.stdout


def test_a_service_that_does_not_answer_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = doctor("--url", url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Nothing answers at {url}.\n"


def pair_with_picture(name: str) -> str:
    """A golden file of one pair, whose query is a picture."""
    pair = {"query": [{"image": name}], "document": [{"text": "a"}], "instruction": ""}
    return json.dumps([pair | {"logit": 1.0, "cell": "I-T"}])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        '[{"query": [{}]}]',
        "[]",
        '{"pairs": 1}',
        pair_with_picture("../picture.png"),
        pair_with_picture("/picture.png"),
    ],
)
def test_a_set_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "golden.json").write_text(content, encoding="utf-8")
    done = doctor("--goldens", tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("The golden set ")
    assert done.stderr.endswith(" cannot be read.\n")


def test_an_unknown_set_is_one_sentence() -> None:
    done = doctor("--goldens", "nothing")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no golden set 'nothing', and no folder with golden")


def test_the_list_has_every_set() -> None:
    done = doctor("--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == golden_sets()
    assert f"{SET}  Qwen/Qwen3-VL-Reranker-2B  5 pairs, 3 with pictures" in done.stdout


@pytest.mark.parametrize("name", golden_sets())
def test_a_set_names_the_source_of_each_number_and_the_address_of_each_picture(name: str) -> None:
    golden_set, folder = read_golden_set(name)
    assert folder is None
    for pair in golden_set.pairs:
        assert pair.source
        for picture in pair.pictures():
            assert golden_set.pictures[picture].startswith("https://")
