"""A running service as a cross-encoder of mteb: `mteb.evaluate(GmrService(url), tasks=...)`.

Needs the extra `eval`.
"""

from service.mteb.cross_encoder import GmrService, RefusedDocument

__all__ = ["GmrService", "RefusedDocument"]
