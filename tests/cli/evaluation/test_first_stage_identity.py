"""The identity of a run has the files of its first stage, not their place alone."""

from __future__ import annotations

from pathlib import Path

from service.cli.evaluation.benchmarks import open_first_stage


class Untold:
    """Told about no search."""

    def notice(self, sentence: str) -> None:
        raise AssertionError(sentence)

    def searched(self, unit: str, done: int) -> None:
        raise AssertionError(unit)


def identity(name: str, tmp_path: Path) -> str:
    return open_first_stage(name, 10, tmp_path / "searches", Untold()).identity


def test_another_model_in_the_same_folder_is_another_first_stage(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"one")
    for name in (str(model), f"gme:{model}"):
        weights.write_bytes(b"one")
        first = identity(name, tmp_path)
        assert first.startswith(f"{name} (sha256:")
        assert identity(name, tmp_path) == first
        weights.write_bytes(b"two")
        assert identity(name, tmp_path) != first


def test_names_are_the_identity_of_what_has_no_files(tmp_path: Path) -> None:
    for name in ("bm25", "own", "gme", "owner/model@1a2b"):
        assert identity(name, tmp_path) == name
