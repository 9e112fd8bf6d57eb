"""`gmr models`, typed: what is let into a channel, what is held back, and what each refusal
says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from model_store.commands.models import register
from model_store.evaluation.promoting import promote_checked
from model_store.evaluation.results import Results, write_results
from model_store.registry.channels import PromotionConflict, current, promote
from model_store.registry.storage import LocalStorage, RegistryFailed
from model_store.registry.versions import upload
from tests.conftest import TINY
from tests.model_store.evaluation.test_gate import drawn
from tests.model_store.registry.published import make_folder

APP = typer.Typer()
register(APP)


@dataclass
class Desk:
    """A registry with two versions of one name, and the results of each."""

    folder: Path
    digests: list[str]

    @property
    def storage(self) -> LocalStorage:
        return LocalStorage(self.folder / "registry")

    def results(self, version: int, shift: float = 0.0, **changes: object) -> Path:
        file = self.folder / f"results-{version}-{shift}.json"
        given = {
            "benchmark": "b",
            "metric": "ndcg@10",
            "checkpoint": f"sha256:{self.digests[version]}",
        }
        write_results(
            file, Results.model_validate(given | {"datasets": drawn(1, shift=shift)} | changes)
        )
        return file

    def run(self, *arguments: object) -> Result:
        environment = {
            "RERANK_REGISTRY": str(self.folder / "registry"),
            "RERANK_MODEL_CACHE": str(self.folder / "cache"),
        }
        return CliRunner().invoke(APP, ["models", *map(str, arguments)], env=environment)

    def promote(self, version: int, *arguments: object) -> Result:
        return self.run("promote", "small", self.digests[version][:12], *arguments)

    def refused(self, result: Result, said: str) -> None:
        assert result.exit_code == 1, result.output
        assert re.search(said, result.stderr), result.stderr
        assert re.fullmatch(r"[^\n]+\.\n", result.stderr)

    @property
    def used(self) -> str | None:
        record = current(self.storage, "small", "production")
        return record.digest if record else None


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    storage = LocalStorage(tmp_path / "registry")
    return Desk(
        tmp_path,
        [upload(storage, make_folder(tmp_path / f"made{seed}", seed)).digest for seed in range(3)],
    )


def test_the_first_version_needs_no_comparison(desk: Desk) -> None:
    assert desk.promote(0).exit_code == 0
    assert desk.used == desk.digests[0]


def test_a_candidate_that_is_as_good_is_promoted_and_the_record_tells(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    result = desk.promote(1, "--evaluation", desk.results(1, 0.01))
    assert result.exit_code == 0, result.output
    assert "better than" in result.output
    record = current(desk.storage, "small", "production")
    assert record
    assert (record.digest, record.forced) == (desk.digests[1], False)
    assert record.gate
    assert record.gate["difference"] == pytest.approx(0.01)


def test_a_worse_candidate_is_held_back(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    desk.refused(
        desk.promote(1, "--evaluation", desk.results(1, -0.05)), r"worse than .* was not promoted"
    )
    assert desk.used == desk.digests[0]


def test_force_is_recorded(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    result = desk.promote(1, "--evaluation", desk.results(1, -0.05), "--force")
    assert result.exit_code == 0, result.output
    record = current(desk.storage, "small", "production")
    assert record
    assert record.forced
    assert record.gate
    assert record.gate["high"] < 0
    assert (
        "(forced)"
        in json.loads(desk.run("show", "small@production").output)["channels"]["production"][0]
    )


def test_force_that_was_not_needed_is_not_recorded(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    desk.promote(1, "--evaluation", desk.results(1, 0.05), "--force")
    record = current(desk.storage, "small", "production")
    assert record
    assert not record.forced


def test_after_the_first_an_evaluation_is_asked_for(desk: Desk) -> None:
    desk.promote(0)
    desk.refused(desk.promote(1), "give the candidate's --evaluation, or --force")
    desk.refused(desk.promote(1, "--evaluation", desk.results(1)), "promoted without an evaluation")
    assert (
        desk.promote(1, "--evaluation", desk.results(1), "--baseline", desk.results(0)).exit_code
        == 0
    )
    assert desk.promote(2, "--force").exit_code == 0
    record = current(desk.storage, "small", "production")
    assert record
    assert (record.forced, record.gate) == (True, None)


def test_results_of_another_checkpoint_do_not_count(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    desk.refused(desk.promote(1, "--evaluation", desk.results(2, 0.1)), "holds the results of")
    desk.refused(
        desk.promote(1, "--evaluation", desk.results(2, 0.1), "--force"), "holds the results of"
    )
    desk.refused(
        desk.promote(1, "--evaluation", desk.results(1), "--baseline", desk.results(2)),
        "holds the results of",
    )
    assert desk.used == desk.digests[0]


def test_another_benchmark_does_not_count(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    desk.refused(
        desk.promote(1, "--evaluation", desk.results(1, benchmark="c")), "cannot be compared"
    )
    assert desk.used == desk.digests[0]


def test_a_rollback_brings_the_evaluation_back(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    desk.promote(1, "--evaluation", desk.results(1, 0.1))
    assert desk.run("rollback", "small").exit_code == 0
    assert desk.used == desk.digests[0]
    desk.refused(desk.promote(2, "--evaluation", desk.results(2, -0.05)), "worse than")


def test_a_kept_evaluation_that_was_changed_is_not_used(desk: Desk) -> None:
    desk.promote(0, "--evaluation", desk.results(0))
    kept = next((desk.folder / "registry" / "small" / "evaluations").iterdir())
    kept.write_text(kept.read_text().replace("0.", "0.0", 1), encoding="utf-8")
    desk.refused(desk.promote(1, "--evaluation", desk.results(1)), "cannot be read")


def test_a_version_that_is_not_whole_is_not_promoted(desk: Desk) -> None:
    (desk.folder / "registry" / "small" / desk.digests[0] / "model.safetensors").write_bytes(b"cut")
    desk.refused(desk.promote(0), r"model\.safetensors is missing or not whole")
    assert desk.used is None


def test_promoting_what_is_promoted_is_said(desk: Desk) -> None:
    desk.promote(0)
    desk.refused(desk.promote(0), "already")


class Overtaken(LocalStorage):
    """A storage in which another version is promoted while the candidate's results are written."""

    def __init__(self, folder: Path, digest: str) -> None:
        super().__init__(folder)
        self._digest = digest

    def create(self, path: str, content: bytes) -> bool:
        if "/evaluations/" in path:
            before = current(self, "small", "production")
            promote(self, "small", "production", self._digest, after=before)
        return super().create(path, content)


def test_a_comparison_with_what_is_no_longer_promoted_does_not_count(desk: Desk) -> None:
    promote_checked(
        desk.storage, "small", desk.digests[0], "production", evaluation=desk.results(0)
    )
    overtaken = Overtaken(desk.folder / "registry", desk.digests[2])
    with pytest.raises(PromotionConflict):
        promote_checked(
            overtaken, "small", desk.digests[1], "production", evaluation=desk.results(1, 0.1)
        )
    assert desk.used == desk.digests[2]


def test_list_show_verify_and_pull_agree(desk: Desk) -> None:
    desk.promote(0)
    listed = desk.run("list").output.splitlines()
    assert listed[0] == "gmr-tiny  ships"
    assert sorted(line.split()[0] for line in listed[1:]) == sorted(
        f"small@sha256:{digest[:12]}" for digest in desk.digests
    )
    assert [line for line in listed if line.endswith("production")] == [
        line for line in listed if desk.digests[0][:12] in line
    ]
    shown = json.loads(desk.run("show", "small@production").output)
    assert shown["digest"] == f"sha256:{desk.digests[0]}"
    assert (
        desk.run("verify", "small@production").output.splitlines()[-1]
        == f"small@sha256:{desk.digests[0]} is whole."
    )
    pulled = Path(desk.run("pull", "small@production").output.splitlines()[-1])
    assert desk.run("verify", pulled).output == f"small@sha256:{desk.digests[0]} is whole.\n"


def test_what_ships_can_be_shown_and_verified(desk: Desk) -> None:
    assert json.loads(desk.run("show", "gmr-tiny").output)["name"] == "gmr-tiny"
    assert desk.run("verify", TINY).output == desk.run("verify", "gmr-tiny").output


@pytest.mark.parametrize("command", ["show", "verify", "pull"])
@pytest.mark.parametrize(
    "model",
    ["nothing", "small@staging", "small@00000000", "small@", "nothing://x/small@production"],
)
def test_what_is_not_there_is_one_sentence(desk: Desk, command: str, model: str) -> None:
    desk.refused(desk.run(command, model), ".")


def test_what_does_not_verify_is_said(desk: Desk) -> None:
    (desk.folder / "registry" / "small" / desk.digests[0] / "config.json").write_bytes(b"{]")
    desk.refused(desk.run("verify", f"small@{desk.digests[0]}"), r"config\.json is not the file")


def test_no_registry_is_said() -> None:
    result = CliRunner().invoke(
        APP, ["models", "promote", "small", "00000000"], env={"RERANK_REGISTRY": None}
    )
    assert (result.exit_code, "RERANK_REGISTRY" in result.stderr) == (2, True)


def test_an_unreadable_results_file_is_said(desk: Desk, tmp_path: Path) -> None:
    desk.refused(
        desk.promote(0, "--evaluation", tmp_path / "nowhere.json"), r"nowhere\.json cannot be read"
    )


def test_a_name_that_leads_elsewhere_is_refused(desk: Desk) -> None:
    with pytest.raises(RegistryFailed):
        promote_checked(desk.storage, "../x", "0" * 64, "production")
