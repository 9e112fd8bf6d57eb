"""OpenAI's error object beside the service's own body, for clients that read it.

The module depends on no HTTP and on no dialect. Invariant: the object's message is that of the
body.

Source: vLLM 0.32, `entrypoints/serve/engine/protocol.py`; OpenAI's Python client.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from service.error_body import flat_body
from service.errors import RerankError, path_of


def write_openai_error(error: RerankError, request_id: str) -> dict[str, Any]:
    """OpenAI's error object, which vLLM's clients read, beside the service's own body."""
    kind = HTTPStatus(error.status).phrase.replace(" ", "").removesuffix("Error") + "Error"
    place = error.problems[0].loc if error.problems else ()
    described = {
        "message": error.sentence(),
        "type": kind,
        "param": path_of(place) or None,
        "code": error.status,
    }
    return {"error": described} | flat_body(error, request_id)
