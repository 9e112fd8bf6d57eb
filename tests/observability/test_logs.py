"""Messages of other libraries are logged if they are useful to an operator."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging
from service.observability.logs import log, log_to_stderr
log_to_stderr()
library = logging.getLogger("asyncio")
library.warning("Unknown child process pid %d, will report returncode 255", 7)
library.warning("child process pid %d exit status already read:  will report returncode 255", 7)
library.warning("Executing %s took %.3f seconds", "it", 0.2)
library.info("nobody asked")
log("told to end")
"""


def test_asyncio_warns_but_not_of_children_that_were_ended_on_purpose() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == [
        "Executing it took 0.200 seconds",
        "told to end",
    ]
