"""A rendered pod as containers of this machine: what a kubelet makes of its fields, podman is told.

Its init containers run one after the other, then its containers, each with the user, the
environment, the folder, the volumes, the memory and the read-only root of the manifest. podman's
writable folders of a read-only root are switched off, because a kubelet adds none. There is no
network, and limits of CPU and devices are left out. Knows no image of ours. Takes an `Engine`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from tests.deploy.cluster.environment import expanded
from tests.deploy.containers import Engine

Object = dict[str, Any]
NAME = "gmr-test-pod"
"""The name of every pod, where it asks for its own."""
_CALM = ("--env=OMP_NUM_THREADS=1", "--env=OMP_WAIT_POLICY=passive")
"""One thread, which waits asleep: a thread that spins keeps a core from the one it waits for."""
_UNITS = {"Ki": "k", "Mi": "m", "Gi": "g"}


class PodRuns:
    """The volumes of pods in a folder. `claims` and `config_maps` are what a cluster would have:
    a claim's folder by its name, and a map's texts by its name and theirs."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        claims: dict[str, Path],
        config_maps: dict[str, dict[str, str]],
    ) -> None:
        self._engine, self._folder = engine, folder
        self._claims, self._config_maps = claims, config_maps

    def run(self, pod: Object, **assigned: int) -> str:
        """The output of a pod's containers, in their order; an assertion fails where one ends with
        an error.

        `assigned` has what a cluster adds to the pod's security context, as OpenShift assigns a
        user to a pod that names none.
        """
        rights = pod.get("securityContext", {}) | assigned
        volumes = {each["name"]: self._volume(each, rights) for each in pod["volumes"]}
        containers = [*pod.get("initContainers", []), *pod["containers"]]
        return "".join(self._run(each, rights, volumes) for each in containers)

    def _run(self, container: Object, rights: Object, volumes: dict[str, str]) -> str:
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        options = [
            "--rm",
            "--pull=never",
            "--network=none",
            "--no-healthcheck",
            *_CALM,
            "--cap-drop=all",
            "--read-only-tmpfs=false",
            f"--read-only={str(own['readOnlyRootFilesystem']).lower()}",
            f"--user={rights['runAsUser']}:{rights.get('runAsGroup', 0)}",
            f"--group-add={rights['fsGroup']}",
            f"--memory={_size(container['resources']['limits']['memory'])}",
        ]
        if not own["allowPrivilegeEscalation"]:
            options.append("--security-opt=no-new-privileges")
        if "workingDir" in container:
            options.append(f"--workdir={container['workingDir']}")
        if "command" in container:
            options.append(f"--entrypoint={json.dumps(container['command'])}")
        variables = {each["name"]: _value(each) for each in container["env"]}
        options += [f"--env={name}={value}" for name, value in variables.items()]
        for mount in container["volumeMounts"]:
            read_only = ",ro=true" if mount.get("readOnly") else ""
            options.append(
                f"--mount={volumes[mount['name']]},destination={mount['mountPath']}{read_only}"
            )
        arguments = [expanded(each, variables) for each in container.get("args", [])]
        return self._engine.podman("run", *options, container["image"], *arguments)

    def _volume(self, volume: Object, rights: Object) -> str:
        """A volume as podman's --mount has it, without its place in a container."""
        match volume:
            case {"emptyDir": {"medium": "Memory", "sizeLimit": size}}:
                return f"type=tmpfs,tmpfs-mode=1777,tmpfs-size={_size(size)}"
            case {"emptyDir": _}:
                folder = self._folder / volume["name"]
                folder.mkdir(exist_ok=True)
                folder.chmod(0o777)
            case {"configMap": {"name": name}}:
                folder = self._folder / volume["name"]
                folder.mkdir(exist_ok=True)
                for file, text in self._config_maps[name].items():
                    (folder / file).write_text(text, encoding="utf-8")
            case {"persistentVolumeClaim": {"claimName": name}}:
                folder = self._claims[name]
                _give_to_group(folder, rights["fsGroup"])
            case _:
                raise AssertionError(f"a kind of volume that is not known here: {volume}")
        return f"type=bind,source={folder}"


def _value(variable: Object) -> str:
    """The value of a variable, which is a text or the pod's name."""
    if "value" in variable:
        value: str = variable["value"]
        return value
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}, variable
    return NAME


def _give_to_group(folder: Path, group: int) -> None:
    """Let a group write to a claim, as a kubelet does for `fsGroup`."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, -1, group)
        path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))


def _size(quantity: str) -> str:
    """A quantity of Kubernetes as podman writes sizes."""
    found = re.fullmatch(r"(\d+)([KMG]i)", quantity)
    assert found, f"{quantity}: a size in Ki, Mi or Gi"
    return found[1] + _UNITS[found[2]]
