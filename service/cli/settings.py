"""The settings of gateway, worker and client, from flags and environment variables, and their page.

Does not depend on what is started with them. Invariant: a wrong, unknown or renamed setting ends
the command with one sentence before anything is started.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from model_store.commands.console import misuse

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from service.gateway.settings import GatewaySettings
    from service.worker.settings import WorkerSettings

    Settings = TypeVar("Settings", bound=BaseSettings)


RENAMED = {
    "RERANK_ACCESS_LOG": "RERANK_LOG_SAMPLE",
    "RERANK_MAX_BODY_MARKS": "RERANK_MAX_JSON_DELIMITERS",
    "RERANK_MAX_WAITING": "RERANK_MAX_QUEUED_REQUESTS",
    "RERANK_MAX_WAIT_MS": "RERANK_MAX_QUEUE_MS",
    "RERANK_WORKER_LOOKS_MISSED": "RERANK_WORKER_PROBE_FAILURES",
    "RERANK_WORKER_LOOK_MS": "RERANK_WORKER_PROBE_MS",
    "RERANK_WORKER_LOOK_TIMEOUT_MS": "RERANK_WORKER_PROBE_TIMEOUT_MS",
}
"""Settings that were renamed, by their old names. An old name is refused, because a setting that is
silently ignored is noticed too late."""


def asks_for_keys(settings: GatewaySettings) -> bool:
    """True if requests to the gateway need an API key."""
    return settings.api_keys is not None or settings.api_keys_file is not None


def gateway_settings(workers: str | None = None, processes: int | None = None) -> GatewaySettings:
    """The gateway's settings; `workers` and `processes` override the environment variables."""
    from service.gateway.settings import GatewaySettings

    given = {"workers": workers, "processes": processes}
    return _read(
        GatewaySettings, {name: value for name, value in given.items() if value is not None}
    )


def worker_settings(model: str | None = None, processes: int | None = None) -> WorkerSettings:
    """The worker's settings; `model` and `processes` override the environment variables."""
    from service.worker.settings import WorkerSettings

    given = {"model": model, "processes": processes}
    settings = _read(
        WorkerSettings, {name: value for name, value in given.items() if value is not None}
    )
    if settings.engine_arguments and settings.engine != "vllm":
        misuse(
            f"RERANK_ENGINE_{min(settings.engine_arguments).upper()} is an argument of vLLM: it"
            " needs RERANK_ENGINE=vllm."
        )
    return settings


def print_settings() -> None:
    """Print every setting with its default, as a page of Markdown."""
    from service.cli.client.settings import ClientSettings
    from service.gateway.settings import GatewaySettings
    from service.worker.settings import WorkerSettings

    typer.echo(
        "# Settings\n\nSettings are environment variables; the flags of a command override them."
        " `gmr settings` prints this page."
    )
    pages: tuple[tuple[str, type[BaseSettings]], ...] = (
        ("Gateway", GatewaySettings),
        ("Worker", WorkerSettings),
        ("Client", ClientSettings),
    )
    for title, kind in pages:
        typer.echo(f"\n## {title}\n\n| variable | default | description |\n|---|---|---|")
        for name, field in sorted(kind.model_fields.items()):
            default = "" if field.default in (None, (), {}) else f"`{str(field.default).lower()}`"
            typer.echo(f"| `RERANK_{name.upper()}` | {default} | {field.description} |")

    typer.echo(
        "\n`RERANK_ENGINE_` followed by the name of a vLLM engine argument in capitals sets that"
        " argument: `RERANK_ENGINE_MAX_NUM_SEQS`.\n`gmr serve` runs gateway and worker in one"
        " process and reads both tables."
    )


def _read(kind: type[Settings], flags: dict[str, Any]) -> Settings:
    """Settings from flags and environment variables; an invalid one ends the command."""
    from pydantic import ValidationError

    refuse_unknown_settings()
    try:
        return kind(**flags)
    except ValidationError as error:
        sentences = [
            f"RERANK_{str(problem['loc'][0]).upper()}: {problem['msg']}."
            for problem in error.errors()
        ]
        misuse("\n".join(sentences))


def refuse_unknown_settings() -> None:
    """End the command if the environment has a setting that does not exist or was renamed."""
    from service.cli.client.settings import ClientSettings
    from service.gateway.settings import GatewaySettings
    from service.worker.settings import ENGINE_PREFIX, WorkerSettings

    known = set()
    for kind in (GatewaySettings, WorkerSettings, ClientSettings):
        known |= {f"RERANK_{name.upper()}" for name in kind.model_fields}
    for name in sorted(os.environ):
        if not name.startswith("RERANK_") or name.startswith(ENGINE_PREFIX) or name in known:
            continue
        if name in RENAMED:
            misuse(f"{name} is now called {RENAMED[name]}: rename it.")

        similar = difflib.get_close_matches(name, known, 1)
        suggestion = f"; did you mean {similar[0]}?" if similar else "."
        misuse(f"There is no setting {name}{suggestion}")
