#!/opt/gmr/bin/python -IS
"""`healthy PORT PATH`: ends with 0 where this container answers 200 there. For health checks without a shell, curl or a proxy."""

import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 4


def main(port: str, path: str) -> str | int:
    """What is wrong, or 0."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{path}: {error}"
    return 0 if status == 200 else f"{path}: {status}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
