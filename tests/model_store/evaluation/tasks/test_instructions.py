"""The instructions of table 13: their names, and `gmr instructions`."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from model_store.evaluation.tasks.instructions import TABLE_13, NoInstruction, named_instruction
from service.cli.main import app


def instructions(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["instructions", *arguments])
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_names_are_short_and_unlike() -> None:
    names = [row.name for row in TABLE_13]
    assert len({name.lower() for name in names}) == len(names) == 40
    for name in names:
        assert re.fullmatch(r"[ITVD]+-[ITVD]+/[\w-]{2,14}", name)


def test_each_is_found_by_its_name_and_by_a_data_set_of_one_task() -> None:
    datasets = [row.dataset for row in TABLE_13]
    for row in TABLE_13:
        assert named_instruction(f" {row.name.lower()} ") is row
        if datasets.count(row.dataset) == 1:
            assert named_instruction(row.dataset.upper()) is row


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("OVEN", "There are several instructions for OVEN: IT-T/OVEN and IT-IT/OVEN."),
        ("argunaa", "There is no instruction 'argunaa': did you mean T-T/ArguAna?"),
        ("zzz", "There is no instruction 'zzz': `gmr instructions` has them."),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(NoInstruction) as refused:
        named_instruction(name)
    assert str(refused.value) == sentence


def test_the_command_lists_them_and_prints_one() -> None:
    text = "Find a Wikipedia image that answers this question."
    assert instructions("WebQA") == f"{text}\n"
    assert f"T-IT/WebQA\t{text}\n" in instructions()
    assert json.loads(instructions("WebQA", "--json")) == {
        "name": "T-IT/WebQA",
        "instruction": text,
    }
    assert [row["name"] for row in json.loads(instructions("--json"))] == [
        row.name for row in TABLE_13
    ]
