"""One release's life by Helm 4: `python helm4.py CHART NAMESPACE VALUES...`, each VALUES a JSON
object, the first installed and every other one an upgrade; then it is uninstalled. Runs where
helm-sdkpy is, which this project does not depend on.
"""

import asyncio
import json
import sys

from helm_sdkpy.actions import Configuration, Install, Uninstall, Upgrade

WAIT = {"wait": True, "timeout": 20, "server_side_apply": True}


async def main(chart: str, namespace: str, *values: str) -> None:
    cluster = Configuration(namespace=namespace)
    for number, given in enumerate(map(json.loads, values)):
        action = Upgrade(cluster) if number else Install(cluster)
        done = await action.run("rerank", chart, values=given, **WAIT)
        sys.stdout.write(json.dumps({"version": done["version"]}) + "\n")
        sys.stdout.flush()
        input()  # until it has been looked at
    await Uninstall(cluster).run("rerank")


asyncio.run(main(*sys.argv[1:]))
