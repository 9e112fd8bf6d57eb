"""The rendered chart: complete for every feature, and valid for every supported Kubernetes version.

Its behaviour on a cluster is tested by installs, in test_install.py.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import Object, Values, expect_valid, helm, merged, objects, one, pods
from tests.deploy.features import FEATURES, FILES
from tests.deploy.helm import CHART, ROOT

OWNER = "example.com/owner"
ANNOTATED: Values = {"commonAnnotations": {OWNER: "search", "helm.sh/resource-policy": "delete"}}
VERSIONS = ["1.27.0", "1.31.0", "1.34.0", "1.37.0"]


@pytest.mark.parametrize("file", FILES)
def test_lint_has_nothing_to_say(file: str) -> None:
    given, files = FILES[file]
    done = helm(
        "lint",
        "--strict",
        CHART,
        *(part for name in files for part in ("--values", CHART / name)),
        given=given,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_what_values_files_make_is_valid(version: str) -> None:
    for given, files in FILES.values():
        expect_valid(objects(given, *files, kube=version), version)


@pytest.mark.parametrize("feature", FEATURES)
def test_what_a_feature_makes_is_valid_on_the_oldest_and_newest_kubernetes(feature: str) -> None:
    """The oldest gets annotations of every object, which pods do not have."""
    for version, more in ((VERSIONS[0], ANNOTATED), (VERSIONS[-1], {})):
        found = objects(merged(FEATURES[feature], more), kube=version)
        expect_valid(found, version)
        names = [(each["kind"], each["metadata"]["name"]) for each in found]
        assert len(set(names)) == len(names)
        expect_annotated(found, more)


def expect_annotated(found: list[Object], given: Values) -> None:
    """Expect the given annotations at every object but the user's own, and in no pod template; an
    object's own annotation goes before one of the same name."""
    common = given.get("commonAnnotations", {})
    for each in found:
        metadata = each["metadata"]
        if metadata["name"].endswith("-extra"):
            continue
        annotations = metadata.get("annotations", {})
        assert annotations.get(OWNER) == common.get(OWNER), metadata["name"]
        if each["kind"] == "Secret":
            assert annotations["helm.sh/resource-policy"] == "keep"
        assert OWNER not in yaml.safe_dump(each.get("spec", {})), metadata["name"]


def test_values_files_annotate_every_object_too() -> None:
    for given, files in FILES.values():
        expect_annotated(objects(merged(given, ANNOTATED), *files), ANNOTATED)


def test_no_environment_of_ours_is_unknown_to_the_service() -> None:
    """A name that starts with RERANK_ and is no setting keeps a process from starting."""
    known = set(re.findall(r"`(RERANK_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))
    for feature, given in FEATURES.items():
        for _, pod in pods(objects(given)):
            for each in [*pod.get("initContainers", ()), *pod["containers"]]:
                names = [entry["name"] for entry in each.get("env", ())]
                assert len(set(names)) == len(names), feature
                unknown = {name for name in names if name.startswith("RERANK_")} - known
                assert not {name for name in unknown if not name.startswith("RERANK_ENGINE_")}, (
                    feature
                )


def test_the_package_has_what_the_chart_needs_and_nothing_else(tmp_path: Path) -> None:
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = {name.removeprefix("gmr-rerank/") for name in archive.getnames()}
    alerts = {f"files/alerts/{path.name}" for path in (ROOT / "deploy/alerts").glob("*.yaml")}
    assert {
        "Chart.yaml",
        "values.yaml",
        "values.schema.json",
        "values-prod.yaml",
        "README.md",
        "files/ask.py",
        *alerts,
    } <= names
    assert not {name for name in names if name.endswith(".py")} - {"files/ask.py"}


@pytest.mark.parametrize(
    ("release", "name"),
    [("rerank", "rerank"), ("search", "search-rerank"), ("rerank-eu", "rerank-eu")],
)
def test_objects_are_named_for_the_release(release: str, name: str) -> None:
    assert one(objects(release=release), "Service", name)
