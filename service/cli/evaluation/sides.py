"""The two models of `gmr eval judgements`: where each is, and which key its service gets.

Depends on the client's options and settings, not on what is compared. Invariant: a key goes to
another host only where it is named for that host.
"""

from __future__ import annotations

from pathlib import Path

from model_store.commands.console import misuse
from service.cli.client.calls import CannotCall, Refused
from service.cli.client.connection import client_settings, service_url
from service.cli.client.run import Target, is_in_process, with_advice
from service.cli.client.settings import DEFAULT_URL

_Given = tuple[str | None, str | None, Path | None]
"""A side's URL, model and key file, as the command line has them."""


def two_targets(given_a: _Given, given_b: _Given) -> tuple[Target, Target]:
    """Targets A and B; options that do not name two models end the command."""
    url, model, key_file = given_a
    url_b, model_b, key_file_b = given_b
    if url_b is None and model_b is None:
        misuse("Name the model to compare with: --url-b, --model-b, or both.")

    common = url or client_settings().url
    if common is None and url_b is None and model is None:
        misuse(
            "Without a URL both models are loaded in this process: name A with --model, or its"
            " service with --url."
        )
    a = Target(url, model, key_file)
    b = _b(Target(url_b or url, model_b, key_file_b), a)
    for side, option in ((a, "--key-file"), (Target(b.url, b.model, key_file_b), "--key-file-b")):
        if side.key_file and is_in_process(side):
            misuse(f"{option} is of a service, and {side.model} is loaded in this process.")
    return a, b


def _b(named: Target, a: Target) -> Target:
    """B with the key of A, where that is the key of the same host; else with its own or none."""
    if named.key_file or is_in_process(named) or is_in_process(a):
        return named
    ours, theirs = (service_url(_url(target)) for target in (a, named))
    same = (ours.scheme, ours.host) == (theirs.scheme, theirs.host)
    return Target(named.url, named.model, a.key_file if same else None, with_key=same)


def _url(target: Target) -> str:
    return target.url or client_settings().url or DEFAULT_URL


def with_own_key(error: CannotCall, target: Target) -> CannotCall:
    """The error of the first call; where a side was asked without a key, with the option for it."""
    if not target.with_key and isinstance(error, Refused) and error.code == "unauthorized":
        return CannotCall(
            f"{_url(target)} needs an API key, and that of A is not sent to another host: name it"
            " with --key-file-b."
        )
    return with_advice(error, target)
