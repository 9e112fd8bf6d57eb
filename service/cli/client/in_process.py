"""The service in this process, without a server: the gateway and worker of `gmr serve`.

Does not depend on a port. Invariant: it is called as a service at a URL is, so that both answer
alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from service.cli.client.calls import CannotCall
from service.cli.client.output import waiting
from service.cli.keys import refusing_keys
from service.cli.serving import check_model, in_one_process, refusing_cascades
from service.cli.settings import gateway_settings, worker_settings
from service.observability.logs import log_to_stderr

_URL = "http://in-this-process/"
_READY_POLL_SECONDS = 0.02


class CannotServe(CannotCall):
    """A model that this process cannot serve; the log has said why."""


@asynccontextmanager
async def service_in_process(model: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that lasts as long as the context; entered once the model is ready.

    A wrong setting, an unknown model or a missing package ends the command. Raises `CannotServe`
    where the model does not load.
    """
    settings = gateway_settings().model_copy(update={"api_keys": None, "api_keys_file": None})
    for_worker = worker_settings(model)
    check_model(for_worker)
    log_to_stderr("error")

    loaded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def settle(*, ready: bool) -> None:
        if not loaded.done():
            loaded.set_result(ready)

    with refusing_keys(), refusing_cascades():
        served = in_one_process(
            settings,
            for_worker,
            on_ready=lambda: settle(ready=True),
            on_failure=lambda: settle(ready=False),
        )
    failure: Exception | None = None
    async with served.router.lifespan_context(served):
        try:
            with waiting(f"Loading {model}"):
                if not await loaded:
                    raise CannotServe(f"{model} cannot be served: the lines above say why.")
            transport = httpx.ASGITransport(app=served)
            timeout = httpx.Timeout(None)
            async with httpx.AsyncClient(
                transport=transport, base_url=_URL, timeout=timeout
            ) as client:
                while (await client.get("health/ready")).is_error:  # until the gateway's next probe
                    await asyncio.sleep(_READY_POLL_SECONDS)
                yield client
        except Exception as error:
            failure = error  # raised within, it would be wrapped by the lifespan's task group
    if failure is not None:
        raise failure
