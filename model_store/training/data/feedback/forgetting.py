"""Forgetting: the lines of requests or of a tenant, and pictures that nothing refers to any more.

Does not depend on contents. A line that has them forgotten is written first, so that they do not
count from then on; then closed files are written anew without them, and so are those that a killed
gateway left. Files that a running gateway appends to keep their lines until they are closed and
this is done again. Invariant: every file is whole at every moment, and nothing that is to be kept
is lost.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from model_store.errors import DataError
from model_store.output_files import output_file
from model_store.training.data.feedback.answers import Forgotten
from model_store.training.data.feedback.folder import (
    EVENTS,
    OPEN,
    PICTURES,
    FeedbackFolder,
    Place,
    lines_of,
)
from model_store.training.data.feedback.lines import (
    LONGEST_WINDOW_SECONDS,
    ContentLine,
    ForgetLine,
    Line,
    decode_line,
    forget_line,
)

MAX_ANSWERS = 10_000_000
"""About 2 GB of memory."""
_TIME = "%Y%m%dT%H%M%SZ"
_PICTURE = re.compile(r"([0-9a-f]{64})\.(?:png|jpg|webp)")
_DEAD_SECONDS = 2 * 86_400
"""A gateway appends to a file on one day: one that has not changed for so long is of a gateway that
was killed."""
_YOUNG_SECONDS = 60.0
"""A picture is kept shortly before the line that refers to it."""


@dataclass(slots=True)
class ForgetCounts:
    """Counts of what was removed, of the lines that open files keep for now, and of pictures that
    are so new that a line may still refer to them."""

    lines: int = 0
    pictures: int = 0
    open_lines: int = 0
    young_pictures: int = 0


def forget(
    folder: Path, *, request_ids: Collection[str] = (), tenants: Collection[str] = ()
) -> ForgetCounts:
    """Forget requests, of all tenants or of some, or whole tenants, and whatever was asked to be
    forgotten before; raises `DataError`."""
    opened = FeedbackFolder(folder)
    answered_at, forgotten = _scan(opened)
    asked = _asked(request_ids, tenants, {tenant for tenant, _ in answered_at.values()})
    if asked:
        now = time.time()
        # a file is removed by the time in its name, and this one after those that it is about
        named = datetime.now(UTC) + timedelta(seconds=LONGEST_WINDOW_SECONDS)
        name = f"{named.strftime(_TIME)}-{secrets.token_hex(8)}.jsonl"
        with output_file(folder / EVENTS / name) as write:
            for tenant, request_id in asked:
                write(forget_line(tenant, request_id, now))
                forgotten.add(ForgetLine(1, "", request_id, tenant, now))

    counts = ForgetCounts()
    referred: set[str] = set()
    for path in opened.files:
        _clean(path, answered_at, forgotten, counts, referred)
    _remove_pictures(folder, referred, counts)
    return counts


def _asked(
    request_ids: Collection[str], tenants: Collection[str], known: Collection[str]
) -> list[tuple[str, str | None]]:
    """Pairs of a tenant and a request id; a request id alone is one of any tenant."""
    if not request_ids:
        return [(tenant, None) for tenant in tenants]
    return [(tenant, name) for tenant in (tenants or known) for name in request_ids]


def _scan(folder: FeedbackFolder) -> tuple[dict[str, tuple[str, float]], Forgotten]:
    """The tenant and the time of each answer, and what was to be forgotten before."""
    answered_at: dict[str, tuple[str, float]] = {}
    forgotten = Forgotten()
    for place, line in folder.lines():
        decoded = decode_line(line, place.location)
        if isinstance(decoded, ForgetLine):
            forgotten.add(decoded)
        else:
            _, before = answered_at.get(decoded.answer, ("", decoded.at))
            answered_at[decoded.answer] = decoded.tenant, min(before, decoded.at)
            if len(answered_at) > MAX_ANSWERS:
                raise DataError(f"{place.location}: there are more than {MAX_ANSWERS:,} answers.")
    return answered_at, forgotten


def _clean(
    path: Path,
    answered_at: dict[str, tuple[str, float]],
    forgotten: Forgotten,
    counts: ForgetCounts,
    referred: set[str],
) -> None:
    """Write a closed file anew without the lines that are to be forgotten; pictures of the others
    are added to `referred`."""
    kept: list[Place] = []
    gone = 0
    for place, content in lines_of(path):
        line = decode_line(content, place.location)
        if not isinstance(line, ForgetLine) and _is_forgotten(line, answered_at, forgotten):
            gone += 1
            continue
        kept.append(place)
        if isinstance(line, ContentLine):
            referred.update(_pictures(line))
    if not gone:
        return
    if path.suffix == OPEN and not _is_dead(path):
        counts.open_lines += gone
        return

    counts.lines += gone
    if not path.exists():  # removed for its age meanwhile
        return
    closed = path.with_suffix("") if path.suffix == OPEN else path
    if kept:
        with output_file(closed) as write:
            for place in kept:
                write(place.read())
    if not kept or closed != path:
        with suppress(FileNotFoundError):
            path.unlink()


def _is_dead(path: Path) -> bool:
    """True if the gateway that appended to an open file was killed."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _DEAD_SECONDS
    return False


def _is_forgotten(
    line: Line, answered_at: dict[str, tuple[str, float]], forgotten: Forgotten
) -> bool:
    _, at = answered_at.get(line.answer, ("", line.at))
    return forgotten.covers(line.tenant, line.request_id, at)


def _pictures(line: ContentLine) -> list[str]:
    """The digests of a line's pictures."""
    digests: list[str] = []
    for parts in (line.query, *line.documents.values()):
        digests += [part["image"].removeprefix("sha256:") for part in parts if "image" in part]
    return digests


def _remove_pictures(folder: Path, referred: set[str], counts: ForgetCounts) -> None:
    now = time.time()
    try:
        for path in (folder / PICTURES).glob("*/*"):
            match = _PICTURE.fullmatch(path.name)
            with suppress(FileNotFoundError):
                if match and match[1] not in referred:
                    if now - path.stat().st_mtime < _YOUNG_SECONDS:
                        counts.young_pictures += 1
                    else:
                        path.unlink()
                        counts.pictures += 1
    except OSError as error:
        raise DataError(f"{folder}: a picture cannot be removed ({error.strerror}).") from None
