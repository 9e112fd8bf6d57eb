"""Opens the recorder of feedback that the settings describe, with all of its parts.

The module depends on settings and constructs what they ask for. Invariant: nothing is read or
written before the recorder runs.
"""

from __future__ import annotations

from service.gateway.cache.opening import open_redis
from service.gateway.feedback.files import FeedbackFiles
from service.gateway.feedback.journal import Journal
from service.gateway.feedback.record import RecordKeys
from service.gateway.feedback.recorder import AnswerRecorder, Permissions
from service.gateway.feedback.redis_tier import CONNECTIONS, RedisRecords
from service.gateway.feedback.room import BufferRoom
from service.gateway.feedback.settings import FeedbackSettings
from service.gateway.feedback.window import AnswerWindow


def open_feedback(settings: FeedbackSettings, secret: bytes) -> AnswerRecorder | None:
    """The recorder; None where no feedback is taken. `secret` keys digests and records."""
    if settings.feedback_folder is None:
        return None

    keys, room = RecordKeys(secret), BufferRoom(settings.feedback_buffer_bytes)
    files = FeedbackFiles(
        settings.feedback_folder,
        max_bytes=settings.feedback_disk_bytes,
        ttl_seconds=settings.feedback_ttl_seconds,
        window_seconds=settings.feedback_window_seconds,
    )
    window = AnswerWindow(
        keys,
        _redis(settings),
        max_bytes=settings.feedback_memory_bytes,
        seconds=settings.feedback_window_seconds,
    )
    permissions = Permissions(
        frozenset(settings.feedback_tenants),
        settings.feedback_share,
        settings.feedback_content,
        frozenset(settings.feedback_content_tenants),
    )
    return AnswerRecorder(keys, window, Journal(files, room), room, permissions)


def _redis(settings: FeedbackSettings) -> RedisRecords | None:
    client = open_redis(settings, connections=CONNECTIONS)
    if client is None:
        return None
    return RedisRecords(
        client,
        prefix=settings.redis_key_prefix,
        max_bytes=settings.feedback_redis_bytes,
        ttl_seconds=settings.feedback_window_seconds,
    )
