#!/opt/gmr/bin/python -IS
"""`healthy PORT PATH [HOST]` exits with 0 if HOST answers 200, else with 1 and the other result.

HOST is this container by default. It serves health checks, and operators in images without curl.
"""

import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_SECONDS = 4


def main(port: str, path: str, host: str = "127.0.0.1") -> str | int:
    """Return 0, or the problem as a sentence for `sys.exit`."""
    connection = HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{path}: {error}"
    return 0 if status == 200 else f"{path}: {status}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
