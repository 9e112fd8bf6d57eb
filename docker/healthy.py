#!/opt/gmr/bin/python -IS
"""`healthy PORT PATH [HOST]` ends with 0 where HOST answers 200, else with 1 and what came instead.

HOST is this container unless given. For health checks, and for people in an image that has no curl.
"""

import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 4


def main(port: str, path: str, host: str = "127.0.0.1") -> str | int:
    """What is wrong, or 0."""
    connection = HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{path}: {error}"
    return 0 if status == 200 else f"{path}: {status}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
