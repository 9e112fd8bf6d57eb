"""The same chart by Helm 4, which applies on the server and waits by watching.

It runs where `HELM4_PYTHON` names an interpreter with helm-sdkpy (Python 3.12, `pip install
helm-sdkpy`): that package has the library, no command. Its rollback fails for want of an option of
its own, and `helm test` it has not.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.cluster.api import Cluster
from tests.deploy.cluster.audit import audit
from tests.deploy.helm import CHART, helm_on
from tests.deploy.test_install import SPACE, left_over, pods, restricted, secret

PYTHON = os.environ.get("HELM4_PYTHON", "")
SCRIPT = Path(__file__).with_name("helm4.py")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="HELM4_PYTHON names no interpreter with helm-sdkpy, which has Helm 4"
)


def test_it_is_installed_upgraded_and_uninstalled(tmp_path: Path) -> None:
    with helm_on(restricted(Cluster()), tmp_path, SPACE) as helm:
        values = [
            json.dumps(given)
            for given in (
                {"test": {"enabled": False}},
                {"test": {"enabled": False}, "gateway": {"replicas": 3}},
            )
        ]
        command = [PYTHON, SCRIPT, CHART, SPACE, *values]
        # its Secrets would come as protobuf
        environment = helm.environment | {"HELM_DRIVER": "memory"}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as four:
            assert four.stdin
            assert four.stdout
            assert json.loads(four.stdout.readline())["version"] == 1
            assert audit(helm.cluster.store, SPACE) == []
            secrets = secret(helm)
            four.stdin.write("\n")
            four.stdin.flush()
            assert json.loads(four.stdout.readline())["version"] == 2
            assert len(pods(helm, "gateway")) == 3
            assert (secret(helm), audit(helm.cluster.store, SPACE)) == (secrets, [])
            four.communicate("\n")
        assert four.returncode == 0
        assert left_over(helm) == {"Secret rerank-secrets"}


def test_it_waits_in_vain_for_what_cannot_start(tmp_path: Path) -> None:
    with helm_on(restricted(Cluster()), tmp_path, SPACE) as helm:
        helm.cluster.missing_images.add("ghcr.io/gmr-rerank/worker-cpu:0.1.0")
        command = [PYTHON, SCRIPT, CHART, SPACE, "{}"]
        environment = helm.environment | {"HELM_DRIVER": "memory"}
        done = subprocess.run(
            command, env=environment, input="\n", capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "deadline exceeded" in done.stderr
