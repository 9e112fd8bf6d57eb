"""The request of `helm test`: one real `/rerank` call to the gateways' Service, with an API key if
one is configured.

Where workers are scaled to zero, the request is repeated until one has started. Does not depend on
any package. Invariant: it succeeds only if the answer is complete and in order.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

REQUEST = {
    "query": "how do I sort a list",
    "documents": [
        "Close the file.",
        "Sort the list in ascending order and return None.",
        "A circle is a round shape.",
    ],
    "cache": "bypass",
}

NO_WORKER = 503


def ask(url: str, key: str | None, seconds: float) -> dict[str, Any]:
    """The answer to the request, repeated for some seconds while no worker is ready; raises if its
    status is not 200."""
    until = time.monotonic() + seconds
    while True:
        try:
            return ask_once(url, key)
        except urllib.error.HTTPError as error:
            if error.code != NO_WORKER or time.monotonic() > until:
                raise
            time.sleep(float(error.headers.get("Retry-After", 1)))


def ask_once(url: str, key: str | None) -> dict[str, Any]:
    """The answer to one request."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{url}/rerank", json.dumps(REQUEST).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=90) as reply:  # noqa: S310
        answer: dict[str, Any] = json.load(reply)
    return answer


def main() -> None:
    """Send the request, check the answer, and print the model and its logits."""
    seconds = float(os.environ.get("START_SECONDS", "0"))
    answer = ask(os.environ["URL"], os.environ.get("KEY"), seconds)
    results = answer["results"]
    logits = [result["logit"] for result in results]
    is_complete = sorted(result["index"] for result in results) == [0, 1, 2]
    if not is_complete or logits != sorted(logits, reverse=True):
        raise SystemExit(f"The answer is incomplete, or not in order: {answer}")
    print(f"{answer['model']} {answer['meta']['model_digest']}: {logits}")  # noqa: T201


if __name__ == "__main__":
    main()
