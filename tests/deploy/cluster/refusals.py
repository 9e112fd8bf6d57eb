"""How the API refuses."""

from __future__ import annotations


class Refused(Exception):
    """A request that changes nothing: `status` and `reason` as the API's Status object has them."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def invalid(kind: str, name: str, problems: list[str]) -> Refused:
    return Refused(422, "Invalid", f"{kind} {name!r} is invalid: {'; '.join(problems)}")
