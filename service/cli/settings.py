"""What the commands share: settings from flags and environment, and the end of a process that
cannot do what it was told.

Invariant: a wrong or misspelt setting ends the process with a sentence, before anything is started.
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
"""Settings that have another name now, and that name. The old names are refused, not read: a value
that is silently ignored is found out too late."""


def asks_for_keys(settings: GatewaySettings) -> bool:
    """Whether the gateway lets in only those who show a key."""
    return settings.api_keys is not None or settings.api_keys_file is not None


def gateway_settings(workers: str | None = None) -> GatewaySettings:
    """The gateway's settings; `workers` stands above the environment's."""
    from service.gateway.settings import GatewaySettings

    return _read(GatewaySettings, {} if workers is None else {"workers": workers})


def worker_settings(model: str | None = None) -> WorkerSettings:
    """The worker's settings; `model` stands above the environment's."""
    from service.worker.settings import WorkerSettings

    settings = _read(WorkerSettings, {} if model is None else {"model": model})
    if settings.engine_arguments and settings.engine != "vllm":
        misuse(
            f"RERANK_ENGINE_{min(settings.engine_arguments).upper()} is an argument of vLLM: it"
            " needs RERANK_ENGINE=vllm."
        )
    return settings


def print_settings() -> None:
    """List every setting with its default, as a page of Markdown."""
    from service.gateway.settings import GatewaySettings
    from service.worker.settings import WorkerSettings

    typer.echo(
        "# Settings\n\nSettings are environment variables; the flags of a command override them."
        " `gmr settings` prints this page."
    )
    for title, kind in (("Gateway", GatewaySettings), ("Worker", WorkerSettings)):
        typer.echo(f"\n## {title}\n\n| variable | default | description |\n|---|---|---|")
        for name, knob in sorted(kind.model_fields.items()):
            default = "" if knob.default in (None, (), {}) else f"`{str(knob.default).lower()}`"
            typer.echo(f"| `RERANK_{name.upper()}` | {default} | {knob.description} |")
    typer.echo(
        "\n`RERANK_ENGINE_` followed by the name of a vLLM engine argument in capitals sets that"
        " argument: `RERANK_ENGINE_MAX_NUM_SEQS`.\n`gmr serve` runs gateway and worker in one"
        " process and reads both tables."
    )


def _read(kind: type[Settings], flags: dict[str, Any]) -> Settings:
    """Settings from flags and environment; a wrong or unknown one ends the process with a
    sentence."""
    from pydantic import ValidationError

    refuse_unknown_settings()
    try:
        return kind(**flags)
    except ValidationError as error:
        misuse(
            "\n".join(
                f"RERANK_{str(each['loc'][0]).upper()}: {each['msg']}." for each in error.errors()
            )
        )


def refuse_unknown_settings() -> None:
    """A misspelt setting must not be ignored."""
    from service.gateway.settings import GatewaySettings
    from service.worker.settings import ENGINE_PREFIX, WorkerSettings

    known = {
        f"RERANK_{name.upper()}"
        for kind in (GatewaySettings, WorkerSettings)
        for name in kind.model_fields
    }
    for name in sorted(set(os.environ)):
        if name in RENAMED:
            misuse(f"{name} is now called {RENAMED[name]}: rename it.")
        if name.startswith("RERANK_") and not name.startswith(ENGINE_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            misuse(f"There is no setting {name}{f'; did you mean {near[0]}?' if near else '.'}")
