"""The connection to a service: its URL and key from options and settings, as an HTTP client.

Does not depend on what is called. Invariant: a key comes from the environment or a file, never from
the command line, and no message has one.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from pydantic import ValidationError

from model_store.commands.console import fail, misuse, sentence_of
from service.cli.client.settings import DEFAULT_URL, ClientSettings
from service.cli.settings import refuse_unknown_settings
from service.loopback import is_loopback

MAX_KEY_FILE_BYTES = 65_536
_ANSWER_SECONDS = 660.0
"""A little more than the longest deadline that a service can have."""
_ENDPOINT = re.compile(r"(/v[12])?(/rerank)?/*$")
"""The path of an endpoint, which people paste with the service's URL."""


def client_settings() -> ClientSettings:
    """The client's settings; an invalid or unknown one ends the command."""
    refuse_unknown_settings()
    try:
        return ClientSettings()
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).upper()
        misuse(f"RERANK_{name}: {error.errors()[0]['msg']}.")


def connect(
    url: str | None, key_file: Path | None, *, connections: int, with_key: bool = True
) -> httpx.AsyncClient:
    """A client of the service at `url`, or at RERANK_URL, or on this machine; without `with_key` it
    sends no key, whatever the settings have.

    A wrong URL, or a key file that cannot be read, ends the command.
    """
    settings = client_settings()
    base = service_url(url or settings.url or DEFAULT_URL)
    try:
        key = key_of(settings, key_file) if with_key else None
    except OSError as error:
        fail(sentence_of(error))
    except ValueError as error:
        fail(str(error))
    return client_of(base, key, connections=connections)


def client_of(base: httpx.URL, key: str | None, *, connections: int) -> httpx.AsyncClient:
    """A client of the service at a URL, with a key or without one."""
    return httpx.AsyncClient(
        base_url=base,
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(_ANSWER_SECONDS, connect=10.0, pool=None),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        trust_env=not is_loopback(base.host),
    )


def service_url(text: str) -> httpx.URL:
    """As `parsed_url`; a wrong one ends the command."""
    try:
        return parsed_url(text)
    except ValueError as error:
        misuse(str(error))


def parsed_url(text: str) -> httpx.URL:
    """The URL of a service, given with or without the path of its endpoint.

    Raises `ValueError`, whose text is one sentence.
    """
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, TypeError):
        raise ValueError(
            "The service's URL is not valid: it looks like http://127.0.0.1:8000."
        ) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("The service's URL begins with http:// or https://, and names a host.")
    if url.userinfo or url.query or url.fragment:
        raise ValueError("The service's URL has no user name, password, query or fragment.")
    return url.copy_with(path=_ENDPOINT.sub("", url.path) + "/")


def key_of(settings: ClientSettings, file: Path | None = None) -> str | None:
    """The API key of a file or of the settings, if there is one.

    Raises `OSError` where a file cannot be read, and `ValueError`, whose text is one sentence.
    """
    file = file or settings.key_file
    if file is None:
        return checked_key(settings.key.get_secret_value()) if settings.key else None
    with file.open("rb") as opened:
        key = opened.read(MAX_KEY_FILE_BYTES).decode("utf-8", "replace").strip()
    if not key:
        raise ValueError(f"{file}: the file has no key.")
    return checked_key(key)


def checked_key(key: str) -> str | None:
    """An API key; None for an empty one. Raises `ValueError`, whose text is one sentence."""
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError("An API key is one word of printable ASCII characters.")
    return key or None
