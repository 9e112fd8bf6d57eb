"""API keys: what one looks like, the file that lists them, and how that is read and changed.

Knows no HTTP. A key is 256 random bits, so its plain SHA-256 can be kept: there is nothing to
guess, which is what slow, salted hashes are for. Invariant: no key is written anywhere, no value of
a file is repeated in what is said about it, and the file is whole at every moment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_KEYS = 10_000
MAX_FILE_BYTES = 16 * 2**20
MAX_KEY_CHARACTERS = 256
MIN_KEY_CHARACTERS = 16
_PREFIX = "gmr_"
_SECRET_BYTES = 32

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Model = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class KeysUnusable(Exception):
    """The keys cannot be read or changed, and why, in one sentence."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyEntry(_Closed):
    """One key: the SHA-256 of its bytes, whose it is, and what it may."""

    sha256: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9A-Fa-f]{64}$")]
    name: Name | None = None
    tenant: Name | None = None
    pairs_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    models: Annotated[tuple[Model, ...], Field(min_length=1, max_length=64)] | None = None

    def scope(self) -> str:
        """Whose the key is: its tenant's, else its own. No two of these look alike, for names hold
        no colon."""
        if self.tenant:
            return f"tenant:{self.tenant}"
        return f"key:{self.name}" if self.name else f"sha256:{self.sha256}"


class KeysFile(_Closed):
    """The file. Names and hashes occur once, and the keys of one tenant, which share its quota, say
    nothing different of it."""

    keys: Annotated[tuple[KeyEntry, ...], Field(max_length=MAX_KEYS)] = ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for what in ("sha256", "name"):
            found = Counter(value for each in self.keys if (value := getattr(each, what)))
            if found and found.most_common(1)[0][1] > 1:
                raise PydanticCustomError("twice", f"two keys have the same {what}")
        for what in ("pairs_per_second", "max_in_flight"):
            said = {
                (each.tenant, value)
                for each in self.keys
                if each.tenant and (value := getattr(each, what)) is not None
            }
            if len(said) > len({tenant for tenant, _ in said}):
                raise PydanticCustomError(
                    "quota", f"keys of one tenant, which share its quota, differ in {what}"
                )
        return self


def new_key() -> str:
    """A random key."""
    return _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


def plain_keys(given: str) -> tuple[KeyEntry, ...]:
    """The keys of a comma-separated list; raises `KeysUnusable`."""
    keys = {key for part in given.split(",") if (key := part.strip())}
    if not keys:
        raise KeysUnusable("RERANK_API_KEYS is set, and holds no key.")
    if len(keys) > MAX_KEYS:
        raise KeysUnusable(f"RERANK_API_KEYS may hold {MAX_KEYS} keys.")
    for key in keys:
        if not MIN_KEY_CHARACTERS <= len(key) <= MAX_KEY_CHARACTERS or not all(
            "!" <= character <= "~" for character in key
        ):
            bounds = f"{MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} characters of visible ASCII"
            raise KeysUnusable(
                f"A key in RERANK_API_KEYS has {bounds}: `gmr keys create` makes good ones."
            )
    return tuple(KeyEntry(sha256=digest(key.encode()).hex()) for key in sorted(keys))


def read_keys(path: Path) -> KeysFile:
    """The keys of a file; raises `KeysUnusable`. Blocking."""
    return parse_keys(path, read_content(path))


def read_content(path: Path) -> bytes:
    """What a keys file holds; raises `KeysUnusable`. Blocking."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeysUnusable(f"There is no keys file {path}: `gmr keys create` makes one.") from None
    except OSError as error:
        raise KeysUnusable(f"The keys file {path} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_FILE_BYTES:
        raise KeysUnusable(f"The keys file {path} is larger than {MAX_FILE_BYTES} bytes.")
    return content


def parse_keys(path: Path, content: bytes) -> KeysFile:
    """The keys that a file's content says; raises `KeysUnusable`."""
    try:
        return KeysFile.model_validate_json(content)
    except ValidationError as error:
        raise KeysUnusable(f"The keys file {path} is not valid: {_why(error)}.") from None


def change_keys(
    path: Path,
    change: Callable[[tuple[KeyEntry, ...]], tuple[KeyEntry, ...]],
    *,
    create: bool = False,
) -> None:
    """Replace a file's keys by what `change` makes of them; raises `KeysUnusable`. Others who do so
    wait. Blocking.

    A new file can be read by its owner alone; one that was there keeps its mode and owner.
    """
    path = Path(os.path.realpath(path))
    try:
        with _locked(path.parent):
            known = path.stat() if path.exists() or not create else None
            before = read_keys(path).keys if known else ()
            content = _checked(change(before)).model_dump_json(exclude_none=True, indent=2) + "\n"
            _replace(path, content.encode(), known)
    except OSError as error:
        raise KeysUnusable(f"The keys file {path} cannot be changed: {error.strerror}.") from None


def _checked(keys: tuple[KeyEntry, ...]) -> KeysFile:
    try:
        return KeysFile.model_validate({"keys": keys})
    except ValidationError as error:
        raise KeysUnusable(f"That cannot be: {_why(error)}.") from None


def _replace(path: Path, content: bytes, known: os.stat_result | None) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 600
    try:
        with os.fdopen(handle, "wb") as file:
            if known:
                os.fchmod(handle, known.st_mode & 0o777)
                if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(handle, known.st_uid, known.st_gid)
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: the file's own goes with each replacement."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _why(error: ValidationError) -> str:
    """The first finding, without the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] in ("twice", "quota"):
        return first["msg"]
    if first["type"] == "json_invalid":
        return "it is not JSON"
    known = {"keys", *KeyEntry.model_fields}
    place = ".".join(str(step) for step in first["loc"] if isinstance(step, int) or step in known)
    return f"{place or 'its shape'} is wrong"
