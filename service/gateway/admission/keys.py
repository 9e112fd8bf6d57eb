"""API keys: their form, the file that lists them, and how that file is read and changed.

Depends on no HTTP. A key is 256 random bits, so a plain SHA-256 of it can be stored: slow and
salted hashes are for secrets that can be guessed. Invariant: no key is written anywhere, no error
repeats a value of the file, and the file is complete at every moment.
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
    """The keys cannot be read or changed; the message is the reason, in one sentence."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyEntry(_Closed):
    """One key: the SHA-256 of its bytes, its owner, its quota, and the models that it may use."""

    sha256: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9A-Fa-f]{64}$")]
    name: Name | None = None
    tenant: Name | None = None
    pairs_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    models: Annotated[tuple[Model, ...], Field(min_length=1, max_length=64)] | None = None

    def scope(self) -> str:
        """The scope of the key: its tenant's, else its own. Names have no colon, so scopes of
        different kinds never collide."""
        if self.tenant:
            return f"tenant:{self.tenant}"
        return f"key:{self.name}" if self.name else f"sha256:{self.sha256}"


class KeysFile(_Closed):
    """The keys file. Names and hashes are unique, and the keys of one tenant, which share its
    quota, do not contradict each other."""

    keys: Annotated[tuple[KeyEntry, ...], Field(max_length=MAX_KEYS)] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for field in ("sha256", "name"):
            values = [getattr(entry, field) for entry in self.keys]
            counts = Counter(value for value in values if value)
            if counts and max(counts.values()) > 1:
                raise PydanticCustomError("twice", f"two keys have the same {field}")

        for field in ("pairs_per_second", "max_in_flight"):
            if self._differs_in_a_tenant(field):
                raise PydanticCustomError(
                    "quota", f"keys of one tenant, which share its quota, differ in {field}"
                )
        return self

    def _differs_in_a_tenant(self, field: str) -> bool:
        """True if two keys of one tenant have different values of a field."""
        values: dict[str, object] = {}
        for entry in self.keys:
            value = getattr(entry, field)
            if entry.tenant is None or value is None:
                continue
            if values.setdefault(entry.tenant, value) != value:
                return True
        return False


def new_key() -> str:
    """A random key."""
    return _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(key: bytes) -> bytes:
    """The hash that is stored of a key."""
    return hashlib.sha256(key).digest()


def plain_keys(value: str) -> tuple[KeyEntry, ...]:
    """The keys of a comma-separated list; raises `KeysUnusable`."""
    keys = {part.strip() for part in value.split(",")} - {""}
    if not keys:
        raise KeysUnusable("RERANK_API_KEYS is set, and holds no key.")
    if len(keys) > MAX_KEYS:
        raise KeysUnusable(f"RERANK_API_KEYS may hold {MAX_KEYS} keys.")

    for key in keys:
        visible = all("!" <= character <= "~" for character in key)
        if not visible or not MIN_KEY_CHARACTERS <= len(key) <= MAX_KEY_CHARACTERS:
            bounds = f"{MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} characters of visible ASCII"
            raise KeysUnusable(
                f"A key in RERANK_API_KEYS has {bounds}: `gmr keys create` makes good ones."
            )
    return tuple(KeyEntry(sha256=digest(key.encode()).hex()) for key in sorted(keys))


def read_keys(path: Path) -> KeysFile:
    """The keys of a file; raises `KeysUnusable`. Blocks."""
    return parse_keys(path, read_content(path))


def read_content(path: Path) -> bytes:
    """The content of a keys file; raises `KeysUnusable`. Blocks."""
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
    """The keys of a file's content; raises `KeysUnusable`."""
    try:
        return KeysFile.model_validate_json(content)
    except ValidationError as error:
        raise KeysUnusable(f"The keys file {path} is not valid: {_reason(error)}.") from None


def change_keys(
    path: Path,
    change: Callable[[tuple[KeyEntry, ...]], tuple[KeyEntry, ...]],
    *,
    create: bool = False,
) -> None:
    """Replace the keys of a file by the result of `change`, one process at a time; raises
    `KeysUnusable`. Blocks.

    A new file can be read by its owner alone; an existing one keeps its mode and owner.
    """
    path = Path(os.path.realpath(path))
    try:
        with _locked(path.parent):
            known = path.stat() if path.exists() or not create else None
            before = read_keys(path).keys if known else ()
            file = _validated(change(before))
            content = file.model_dump_json(exclude_none=True, indent=2) + "\n"
            _replace(path, content.encode(), known)
    except OSError as error:
        raise KeysUnusable(f"The keys file {path} cannot be changed: {error.strerror}.") from None


def _validated(keys: tuple[KeyEntry, ...]) -> KeysFile:
    try:
        return KeysFile.model_validate({"keys": keys})
    except ValidationError as error:
        raise KeysUnusable(f"That cannot be: {_reason(error)}.") from None


def _replace(path: Path, content: bytes, known: os.stat_result | None) -> None:
    """Write the file under another name with the known mode and owner, then rename it."""
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
    """Hold a lock on the folder: one on the file would be lost with its replacement."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _reason(error: ValidationError) -> str:
    """The first problem, without the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] in ("twice", "quota"):
        return first["msg"]
    if first["type"] == "json_invalid":
        return "it is not JSON"

    fields = {"keys", *KeyEntry.model_fields}
    steps = [str(step) for step in first["loc"] if isinstance(step, int) or step in fields]
    return f"{'.'.join(steps) or 'its shape'} is wrong"
