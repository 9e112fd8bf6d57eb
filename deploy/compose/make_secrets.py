"""Generates the secrets and the .env file of docker-compose.yml. `make secrets` runs it; any Python
does.

Does not depend on any package, so neither the service nor its dependencies have to be installed.
Containers read the secrets as other users, so the files are readable by all, and their folder by
its owner alone. Invariant: existing files are never changed; the folder appears with all its files,
or not at all.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECRETS, SETTINGS = Path("deploy/compose/secrets"), Path(".env")
_SETTINGS = """\
# Settings of docker-compose.yml on this machine. Lines that are commented out show the defaults.
GMR_SECRETS=./{folder}
COMPOSE_PROFILES=cpu
# GMR_VERSION=0.1.0
# PIP_EXTRA_INDEX_URL=       of PyTorch's CPU builds, where your package index has none
# GMR_BIND=127.0.0.1
# GMR_PORT=8000
# GMR_PROMETHEUS_PORT=9090
# GMR_GRAFANA_PORT=3000
# GMR_GATEWAY_CPUS=1
# GMR_WORKER_CPUS=1
# GMR_WORKER_MEMORY=4g
# GMR_MODELS=models          a volume, or a folder of checkpoints such as ./checkpoints
# GMR_GPU_READ_ONLY=true
# RERANK_MODEL=gmr-tiny
# RERANK_MODEL_REVISION=
# RERANK_MODEL_FAMILY=       of a folder without a manifest whose files do not tell
# RERANK_REGISTRY=
"""


def main(root: Path = ROOT) -> str | None:
    """Generate the files that do not exist; returns an error sentence if that fails."""
    folder, settings = root / SECRETS, root / SETTINGS
    if not folder.exists():
        try:
            _make(folder)
        except OSError as error:
            return f"{error.filename}: {error.strerror}."
        print(f"Made {SECRETS}. Your API key is in {SECRETS / 'api_key'}.")

    if not settings.exists():
        settings.write_text(_SETTINGS.format(folder=SECRETS), encoding="utf-8")
        print(f"Made {SETTINGS}.")
    elif "GMR_SECRETS=" not in settings.read_text(encoding="utf-8"):
        return (
            f"{SETTINGS} exists without these settings: add the lines GMR_SECRETS=./{SECRETS} and"
            " COMPOSE_PROFILES=cpu."
        )
    return None


def _make(folder: Path) -> None:
    """Write the secrets into a temporary folder, then rename it."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".secrets-") as temporary:
        made = Path(temporary, folder.name)
        made.mkdir(mode=0o700)
        for name, content in _contents().items():
            path = made / name
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)
        made.rename(folder)


def _contents() -> dict[str, str]:
    """The content of each file by its name.

    The API key allows all models. Prometheus' key allows none, so it can only read the metrics.
    """
    redis_password = secrets.token_urlsafe(32)
    api_key, prometheus_key = (f"gmr_{secrets.token_urlsafe(32)}" for _ in range(2))
    keys = [
        {"sha256": _sha256(api_key), "name": "compose", "tenant": "compose"},
        {
            "sha256": _sha256(prometheus_key),
            "name": "prometheus",
            "tenant": "prometheus",
            "models": ["none"],
        },
    ]
    commands = "-@all +mget +set +select +getrange +expire +unlink"
    redis_hash = _sha256(redis_password)
    return {
        "api_key": api_key,
        "prometheus_key": prometheus_key,
        "keys/keys.json": json.dumps({"keys": keys}, indent=2) + "\n",
        "cache_key": secrets.token_urlsafe(32),
        "redis_password": redis_password,
        "redis_acl": (f"user default off\nuser gmr on #{redis_hash} resetkeys ~gmr:* {commands}\n"),
        "grafana_password": secrets.token_urlsafe(16),
    }


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
