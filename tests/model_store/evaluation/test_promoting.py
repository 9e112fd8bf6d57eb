"""`gmr models` on the command line: promotions, refusals, and the sentence of each refusal."""

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
class Models:
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

    def refused(self, result: Result, sentence: str) -> None:
        assert result.exit_code == 1, result.output
        assert re.search(sentence, result.stderr), result.stderr
        assert re.fullmatch(r"[^\n]+\.\n", result.stderr)

    @property
    def used(self) -> str | None:
        record = current(self.storage, "small", "production")
        return record.digest if record else None


@pytest.fixture
def models(tmp_path: Path) -> Models:
    storage = LocalStorage(tmp_path / "registry")
    return Models(
        tmp_path,
        [upload(storage, make_folder(tmp_path / f"made{seed}", seed)).digest for seed in range(3)],
    )


def test_the_first_version_needs_no_comparison(models: Models) -> None:
    assert models.promote(0).exit_code == 0
    assert models.used == models.digests[0]


def test_a_candidate_that_is_as_good_is_promoted_and_the_record_tells(
    models: Models,
) -> None:
    models.promote(0, "--evaluation", models.results(0))
    result = models.promote(1, "--evaluation", models.results(1, 0.01))

    assert result.exit_code == 0, result.output
    assert "better than" in result.output

    record = current(models.storage, "small", "production")

    assert record
    assert (record.digest, record.forced) == (models.digests[1], False)
    assert record.gate
    assert record.gate["difference"] == pytest.approx(0.01)


def test_a_worse_candidate_is_held_back(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    models.refused(
        models.promote(1, "--evaluation", models.results(1, -0.05)),
        r"worse than .* was not promoted",
    )
    assert models.used == models.digests[0]


def test_a_report_of_a_benchmark_is_an_evaluation_and_needs_the_same_candidates(
    models: Models,
) -> None:
    """`results.json` of `gmr eval report`: rows of several datasets, and digests of candidates."""
    rows = {"r": {"cell": "T-T", "metric": "ndcg@10", "datasets": ["a", "b"]}}
    table = {"rows": rows, "candidates": dict.fromkeys("ab", "sha256:" + "1" * 64)}
    models.promote(0, "--evaluation", models.results(0, **table))
    other = table | {"candidates": dict.fromkeys("ab", "sha256:" + "2" * 64)}
    models.refused(
        models.promote(1, "--evaluation", models.results(1, 0.01, **other)),
        "not of the same candidates",
    )
    assert models.promote(1, "--evaluation", models.results(1, 0.02, **table)).exit_code == 0
    assert models.used == models.digests[1]


def test_queries_without_scores_hold_a_candidate_back(models: Models) -> None:
    evaluation = models.results(0, failed=2)
    models.refused(models.promote(0, "--evaluation", evaluation), "2 queries without scores")
    assert models.used is None
    assert models.promote(0, "--evaluation", evaluation, "--force").exit_code == 0


def test_force_is_recorded(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    result = models.promote(1, "--evaluation", models.results(1, -0.05), "--force")

    assert result.exit_code == 0, result.output

    record = current(models.storage, "small", "production")

    assert record
    assert record.forced
    assert record.gate
    assert record.gate["high"] < 0
    assert (
        "(forced)"
        in json.loads(models.run("show", "small@production").output)["channels"]["production"][0]
    )


def test_force_that_was_not_needed_is_not_recorded(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    models.promote(1, "--evaluation", models.results(1, 0.05), "--force")
    record = current(models.storage, "small", "production")

    assert record
    assert not record.forced


def test_after_the_first_an_evaluation_is_asked_for(models: Models) -> None:
    models.promote(0)
    models.refused(models.promote(1), "give the candidate's --evaluation, or --force")
    models.refused(
        models.promote(1, "--evaluation", models.results(1)), "promoted without an evaluation"
    )

    assert (
        models.promote(
            1, "--evaluation", models.results(1), "--baseline", models.results(0)
        ).exit_code
        == 0
    )
    assert models.promote(2, "--force").exit_code == 0

    record = current(models.storage, "small", "production")

    assert record
    assert (record.forced, record.gate) == (True, None)


def test_results_of_another_checkpoint_do_not_count(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    models.refused(
        models.promote(1, "--evaluation", models.results(2, 0.1)), "holds the results of"
    )
    models.refused(
        models.promote(1, "--evaluation", models.results(2, 0.1), "--force"),
        "holds the results of",
    )
    models.refused(
        models.promote(1, "--evaluation", models.results(1), "--baseline", models.results(2)),
        "holds the results of",
    )

    assert models.used == models.digests[0]


def test_another_benchmark_does_not_count(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    models.refused(
        models.promote(1, "--evaluation", models.results(1, benchmark="c")),
        "cannot be compared",
    )
    assert models.used == models.digests[0]


def test_a_rollback_brings_the_evaluation_back(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    models.promote(1, "--evaluation", models.results(1, 0.1))

    assert models.run("rollback", "small").exit_code == 0
    assert models.used == models.digests[0]

    models.refused(models.promote(2, "--evaluation", models.results(2, -0.05)), "worse than")


def test_a_kept_evaluation_that_was_changed_is_not_used(models: Models) -> None:
    models.promote(0, "--evaluation", models.results(0))
    kept = next((models.folder / "registry" / "small" / "evaluations").iterdir())
    kept.write_text(kept.read_text().replace("0.", "0.0", 1), encoding="utf-8")
    models.refused(models.promote(1, "--evaluation", models.results(1)), "cannot be read")


def test_a_version_that_is_not_whole_is_not_promoted(models: Models) -> None:
    (models.folder / "registry" / "small" / models.digests[0] / "model.safetensors").write_bytes(
        b"cut"
    )
    models.refused(models.promote(0), r"model\.safetensors is missing or not whole")
    assert models.used is None


def test_promoting_what_is_promoted_is_said(models: Models) -> None:
    models.promote(0)
    models.refused(models.promote(0), "already")


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


def test_a_comparison_with_what_is_no_longer_promoted_does_not_count(
    models: Models,
) -> None:
    promote_checked(
        models.storage, "small", models.digests[0], "production", evaluation=models.results(0)
    )
    overtaken = Overtaken(models.folder / "registry", models.digests[2])

    with pytest.raises(PromotionConflict):
        promote_checked(
            overtaken,
            "small",
            models.digests[1],
            "production",
            evaluation=models.results(1, 0.1),
        )
    assert models.used == models.digests[2]


def test_list_show_verify_and_pull_agree(models: Models) -> None:
    models.promote(0)
    listed = models.run("list").output.splitlines()

    assert listed[:3] == ["gmr-mini  ships", "gmr-tiny  ships", "gmr-tiny-d  ships"]
    assert sorted(line.split()[0] for line in listed[3:]) == sorted(
        f"small@sha256:{digest[:12]}" for digest in models.digests
    )
    assert [line for line in listed if line.endswith("production")] == [
        line for line in listed if models.digests[0][:12] in line
    ]

    shown = json.loads(models.run("show", "small@production").output)

    assert shown["digest"] == f"sha256:{models.digests[0]}"
    assert (
        models.run("verify", "small@production").output.splitlines()[-1]
        == f"small@sha256:{models.digests[0]} is whole."
    )

    pulled = Path(models.run("pull", "small@production").output.splitlines()[-1])

    assert models.run("verify", pulled).output == f"small@sha256:{models.digests[0]} is whole.\n"


def test_what_ships_can_be_shown_and_verified(models: Models) -> None:
    assert json.loads(models.run("show", "gmr-tiny").output)["name"] == "gmr-tiny"
    assert models.run("verify", TINY).output == models.run("verify", "gmr-tiny").output


@pytest.mark.parametrize("command", ["show", "verify", "pull"])
@pytest.mark.parametrize(
    "model",
    ["nothing", "small@staging", "small@00000000", "small@", "nothing://x/small@production"],
)
def test_what_is_not_there_is_one_sentence(models: Models, command: str, model: str) -> None:
    models.refused(models.run(command, model), ".")


def test_what_does_not_verify_is_said(models: Models) -> None:
    (models.folder / "registry" / "small" / models.digests[0] / "config.json").write_bytes(b"{]")
    models.refused(
        models.run("verify", f"small@{models.digests[0]}"), r"config\.json is not the file"
    )


def test_a_missing_registry_is_refused() -> None:
    result = CliRunner().invoke(
        APP, ["models", "promote", "small", "00000000"], env={"RERANK_REGISTRY": None}
    )
    assert (result.exit_code, "RERANK_REGISTRY" in result.stderr) == (2, True)


def test_an_unreadable_results_file_is_said(models: Models, tmp_path: Path) -> None:
    models.refused(
        models.promote(0, "--evaluation", tmp_path / "nowhere.json"),
        r"nowhere\.json cannot be read",
    )


def test_a_name_that_leads_elsewhere_is_refused(models: Models) -> None:
    with pytest.raises(RegistryFailed):
        promote_checked(models.storage, "../x", "0" * 64, "production")
