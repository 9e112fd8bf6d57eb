"""The gateway's pages for browsers.

Holds their order alone: the first one is where the address without a path leads. Invariant: no page
needs a key, because none holds anything of a caller.
"""

from __future__ import annotations

from service.gateway.playground.page import playground_page
from service.gateway.runbook.page import runbook_page
from service.gateway.swagger.page import swagger_page
from service.web.static_files import StaticPage


def gateway_pages() -> list[StaticPage]:
    """The playground, the API's page and the runbook."""
    return [playground_page(), swagger_page(), runbook_page()]
