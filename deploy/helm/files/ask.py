"""`helm test`: one real `/rerank` request to the gateways' Service, with a key where keys are asked
for.

Passes where the answer is whole, in order, and says which checkpoint gave it.
"""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

QUESTION = {
    "query": "how do I sort a list",
    "documents": [
        "Close the file.",
        "Sort the list in ascending order and return None.",
        "A circle is a round shape.",
    ],
    "cache": "bypass",
}


def ask(url: str, key: str | None) -> dict[str, Any]:
    """The answer to the question; raises where it is not 200."""
    headers = {"content-type": "application/json"} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(f"{url}/rerank", json.dumps(QUESTION).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
        answer: dict[str, Any] = json.load(reply)
    return answer


def main() -> None:
    """Ask, check, and say what came back."""
    answer = ask(os.environ["URL"], os.environ.get("KEY"))
    results = answer["results"]
    logits = [each["logit"] for each in results]
    if sorted(each["index"] for each in results) != [0, 1, 2] or logits != sorted(
        logits, reverse=True
    ):
        raise SystemExit(f"The answer is not whole, or not in order: {answer}")
    print(f"{answer['model']} {answer['meta']['model_digest']}: {logits}")  # noqa: T201


if __name__ == "__main__":
    main()
