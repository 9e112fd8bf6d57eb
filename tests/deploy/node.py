"""A node that runs Pods for real: their containers are processes of this machine.

Each has a root file system of its own, which is this machine's with what the Pod mounts laid over
it, read-only where the Pod says so; the user, without any capability, that its security context
names; and no other environment than its own. All Pods share one network apart from the machine's,
at one address: two that listen on the same port cannot be on one node. What stands in for an image
is what this machine has installed. A container that ends is not started again. It takes root.
"""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.deploy.cluster.api import Cluster
from tests.deploy.cluster.catalogue import CONFIG_MAP, POD, SECRET, SERVICE
from tests.deploy.cluster.environment import expanded, variables
from tests.deploy.cluster.pods import ports

Object = dict[str, Any]
ADDRESS = "10.244.0.1"
LOOK_SECONDS = 0.3
END_SECONDS = 60
ENTRYPOINTS = {
    "ghcr.io/gmr-rerank/gateway": ["gmr"],
    "ghcr.io/gmr-rerank/worker-cpu": ["gmr"],
    "docker.io/library/redis": [],
}
PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = f"ip link set lo up; ip addr add {ADDRESS}/32 dev lo; echo; read end"
ROOT = """
mount -t tmpfs none "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay none -o lowerdir=/,upperdir="$base/upper",workdir="$base/work" "$base/root"
cd "$base/root"
mount --rbind /dev dev
mount -t proc none proc
"""


class Node:
    """Runs what a cluster places; use as its runtime, and `running(...)` to let it work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._wanted: dict[str, Object] = {}
        self._states: dict[str, tuple[str, bool]] = {}
        self._started: dict[str, dict[str, subprocess.Popen[bytes]]] = {}

    def state(self, pod: Object) -> tuple[str, bool]:
        uid = pod["metadata"]["uid"]
        self._wanted[uid] = pod
        return self._states.get(uid, ("Pending", False))

    def said(self) -> str:
        """All that containers have written."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')}"
            for log in sorted(self.folder.glob("*.log"))
        )

    def inside(self, *command: str) -> str:
        """What a command prints in the node's network; empty where it fails."""
        done = subprocess.run(
            self.entering(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode else done.stdout or " "

    def entering(self, *command: str) -> list[str]:
        """The command that runs another one in the node's network."""
        return ["nsenter", "--target", str(self._network.pid), "--net", *command]

    @contextmanager
    def running(self, cluster: Cluster) -> Iterator[None]:
        """Run what is placed, and end it all at the end."""
        command = ["unshare", "--net", "bash", "-ec", NETWORK]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as self._network:
            assert self._network.stdout
            assert self._network.stdout.readline(), "there is no network"
            over = threading.Event()
            thread = threading.Thread(target=self._work, args=(cluster, over), daemon=True)
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
                for uid in list(self._started):
                    self._stop(uid)
                self._network.communicate(b"\n")

    def _work(self, cluster: Cluster, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            there = {pod["metadata"]["uid"] for pod in cluster.store.list(POD)}
            for uid in [uid for uid in self._started if uid not in there]:
                self._stop(uid)
            for uid, pod in list(self._wanted.items()):
                if uid in there:
                    self._advance(cluster, uid, pod)
            cluster.settle()

    def _advance(self, cluster: Cluster, uid: str, pod: Object) -> None:
        """Start the Pod's containers, or look how they are."""
        if uid not in self._started:
            self._started[uid] = {}
            for container in pod["spec"]["containers"]:
                self._started[uid][container["name"]] = self._start(cluster, pod, container)
        codes = [process.poll() for process in self._started[uid].values()]
        if None not in codes:
            self._states[uid] = ("Failed" if any(codes) else "Succeeded", False)
        else:
            ready = all(
                self.passes(pod, container["name"], probe)
                for container in pod["spec"]["containers"]
                for probe in ("startupProbe", "readinessProbe")
            )
            self._states[uid] = ("Running", ready)

    def passes(self, pod: Object, name: str, probe: str) -> bool:
        """Whether a container's probe passes, or it has none."""
        container = next(found for found in pod["spec"]["containers"] if found["name"] == name)
        asked, process = container.get(probe), self._started[pod["metadata"]["uid"]][name]
        if asked is None:
            return True
        if http := asked.get("httpGet"):
            named = {port.get("name"): port["containerPort"] for port in ports(pod["spec"])}
            url = f"http://{ADDRESS}:{named.get(http['port'], http['port'])}{http['path']}"
            patience = str(asked.get("timeoutSeconds", 1))
            return bool(self.inside("curl", "--silent", "--fail", "--max-time", patience, url))
        within = ["nsenter", "--target", str(process.pid), "--mount", "--root", "--wd"]
        return bool(self.inside(*within, *asked["exec"]["command"]))

    def _start(self, cluster: Cluster, pod: Object, container: Object) -> subprocess.Popen[bytes]:
        name = f"{pod['metadata']['name']}-{container['name']}"
        base = self.folder / name
        base.mkdir()
        environment = variables(cluster.store, pod, container)
        repository = container["image"].partition("@")[0].rpartition(":")[0]
        command = [
            *(container.get("command") or ENTRYPOINTS[repository]),
            *(container.get("args") or []),
        ]
        rights = (pod["spec"].get("securityContext") or {}) | container["securityContext"]
        lines = [f"base={shlex.quote(str(base))}", ROOT, *self._mounts(cluster, pod, container)]
        lines += ["mount -o remount,ro ."] if rights.get("readOnlyRootFilesystem") else []
        user = [
            "setpriv",
            f"--reuid={rights['runAsUser']}",
            f"--regid={rights['runAsGroup']}",
            "--clear-groups",
        ]
        user += ["--bounding-set=-all", "--no-new-privs"]
        lines.append(f'exec chroot . {shlex.join(user)} -- "$@"')
        inside = [
            "nsenter",
            "--target",
            str(self._network.pid),
            "--net",
            "unshare",
            "--mount",
            "--propagation",
            "private",
        ]
        script = [
            *inside,
            "bash",
            "-ec",
            "\n".join(lines),
            name,
            *(expanded(part, environment) for part in command),
        ]
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                script,
                env={"PATH": PATH} | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _mounts(self, cluster: Cluster, pod: Object, container: Object) -> Iterator[str]:
        """Shell lines that lay the container's volumes over its root, and the names of Services
        that its network knows."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
        for mount in container.get("volumeMounts") or []:
            source = self._volume(cluster, pod, volumes[mount["name"]])
            where = shlex.quote(mount["mountPath"].lstrip("/"))
            parents = shlex.join(
                str(folder)
                for folder in Path(mount["mountPath"].lstrip("/")).parents
                if folder.name
            )
            yield f"mkdir -p {where} && mount --bind {shlex.quote(str(source))} {where}"
            yield f"chmod a+rx {parents or '.'}"  # a package of this machine may have closed them
            if mount.get("readOnly"):
                yield f"mount -o remount,bind,ro {where}"
        yield from _shown_again(
            [mount["mountPath"] for mount in container.get("volumeMounts") or []]
        )
        services = cluster.store.list(SERVICE, pod["metadata"]["namespace"])
        hosts = "".join(f"{ADDRESS} {service['metadata']['name']}\n" for service in services)
        yield f"printf %s {shlex.quote('127.0.0.1 localhost' + chr(10) + hosts)} > etc/hosts"
        for closed in [
            folder for folder in Path(sys.base_prefix).parents if not folder.stat().st_mode & 1
        ]:
            # an interpreter in somebody's home
            yield f"chmod a+rx {shlex.quote(str(closed).lstrip('/'))}"

    def _volume(self, cluster: Cluster, pod: Object, volume: Object) -> Path:
        """The folder behind a volume; the containers of a Pod share it."""
        folder = self.folder / f"{pod['metadata']['name']}-volume-{volume['name']}"
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o777)
            for path, content in self._files(cluster, pod, volume).items():
                (folder / path).write_bytes(content)
        return folder

    def _files(self, cluster: Cluster, pod: Object, volume: Object) -> dict[str, bytes]:
        namespace = pod["metadata"]["namespace"]
        if secret := volume.get("secret"):
            found = cluster.get(SECRET, namespace, secret["secretName"]).get("data") or {}
            data, items = (
                {key: base64.b64decode(text) for key, text in found.items()},
                secret.get("items"),
            )
        elif named := volume.get("configMap"):
            found = cluster.get(CONFIG_MAP, namespace, named["name"]).get("data") or {}
            data, items = {key: text.encode() for key, text in found.items()}, named.get("items")
        else:
            assert "emptyDir" in volume, (
                f"volume {volume['name']} is of a kind that this node does not have"
            )
            return {}
        return {item["path"]: data[item["key"]] for item in items} if items else data

    def _stop(self, uid: str) -> None:
        for process in self._started.pop(uid).values():
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _shown_again(mounted: Sequence[str]) -> Iterator[str]:
    """Shell lines that lay what stands in for an image over a volume that hides it, as `/tmp` hides
    a checkout in it."""
    for folder in (Path.cwd(), Path(sys.prefix), Path(sys.base_prefix)):
        if any(folder.is_relative_to(path) for path in mounted):
            where = shlex.quote(str(folder).lstrip("/"))
            yield (
                f"mkdir -p {where} && mount --bind {shlex.quote(str(folder))} {where} && mount -o"
                f" remount,bind,ro {where}"
            )


def is_possible() -> bool:
    """Whether this machine lets us: root, with namespaces and overlays."""
    if os.geteuid() != 0:
        return False
    trial = (
        "mount -t tmpfs none /mnt; cd /mnt; mkdir u w r; mount -t overlay none -o"
        " lowerdir=/,upperdir=u,workdir=w r"
    )
    command = ["unshare", "--net", "--mount", "--propagation", "private", "bash", "-ec", trial]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
