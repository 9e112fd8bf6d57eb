"""Sentinel's failover and a Cluster's moves: misses while they last, the right scores before and
after, no error in between."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from service.gateway.cache.redis_tier import RedisTier
from tests.conftest import free_port
from tests.gateway.redis_tiers import Since, holds, key_of, score_of, tier_on, written
from tests.processes import Process, RedisServer, eventually

pytestmark = pytest.mark.slow


class Watcher(Process):
    """A redis-server in Sentinel's role, which watches one master."""

    def __init__(self, folder: Path, master: int) -> None:
        self.port = free_port()
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor mymaster 127.0.0.1"
            f" {master} 1\nsentinel down-after-milliseconds mymaster 5000\nsentinel"
            " failover-timeout mymaster 5000\n"
        )
        super().__init__(["redis-server", str(settings), "--sentinel"], folder / "sentinel.log")

    def command(self, *words: str) -> str:
        asked = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()

    def knows_replicas(self) -> bool:
        words = self.command("SENTINEL", "MASTER", "mymaster").split()
        return "num-slaves" in words and words[words.index("num-slaves") + 1] == "1"


async def back(tier: RedisTier, name: str, tag: str = "question") -> bool:
    """Write a score, and return True if it is found."""
    await written(tier, name, tag=tag)
    return await tier.get_many([key_of(name, tag)]) == [score_of(name)]


async def test_a_failover_costs_misses_and_no_more(tmp_path: Path) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(RedisServer(tmp_path, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(
            RedisServer(tmp_path, "--replicaof", "127.0.0.1", str(master.port))
        )
        eventually(
            lambda: "master_link_status:up" in replica.command("INFO", "replication"),
            why=replica.said,
        )
        watcher = stack.enter_context(Watcher(tmp_path, master.port))
        eventually(watcher.knows_replicas, why=watcher.said)
        # the first one is not there
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{watcher.port}/mymaster/0"
        async with tier_on(url) as tier:
            await written(tier, "a", "b")
            # the link is up before the writes have arrived
            eventually(lambda: replica.command("DBSIZE") == "2")

            assert await tier.get_many([key_of("a"), key_of("b")]) == [score_of("a"), score_of("b")]
            master.kill()

            async def found_again() -> bool:
                scores = await tier.get_many([key_of("a"), key_of("b")])
                assert scores in ([None, None], [score_of("a"), score_of("b")])
                return scores[0] is not None

            await holds(found_again)
            await holds(lambda: back(tier, "c"))

            assert "role:master" in replica.command("INFO", "replication")
            master.start()  # empty, and still sure that it is the master
            assert await tier.get_many([key_of("a"), key_of("c")]) == [score_of("a"), score_of("c")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Three masters of a Cluster, which have a third of the slots each."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        buses = [free_port() for _ in range(3)]
        nodes = [
            stack.enter_context(
                RedisServer(
                    folder,
                    *(
                        "--cluster-enabled",
                        "yes",
                        "--cluster-config-file",
                        f"nodes-{bus}.conf",
                        "--cluster-port",
                        str(bus),
                    ),
                    *("--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000"),
                )
            )
            for bus in buses
        ]
        bounds = [0, 5461, 10923, 16384]
        for number, node in enumerate(nodes):
            assert (
                node.command(
                    "CLUSTER", "ADDSLOTSRANGE", str(bounds[number]), str(bounds[number + 1] - 1)
                )
                == "OK"
            )
            assert (
                nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port), str(buses[number]))
                == "OK"
            )

        eventually(
            lambda: all(
                "cluster_known_nodes:3" in node.command("CLUSTER", "INFO") for node in nodes
            )
        )
        eventually(
            lambda: all(
                "cluster_slots_assigned:16384" in node.command("CLUSTER", "INFO") for node in nodes
            )
        )
        eventually(
            lambda: all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes)
        )
        yield nodes


@pytest.fixture
def url(cluster: list[RedisServer]) -> str:
    for node in cluster:
        node.command("FLUSHALL")
        node.command("CONFIG", "RESETSTAT")
    return f"redis+cluster://127.0.0.1:{cluster[0].port},127.0.0.1:{cluster[1].port}"


QUESTIONS = [f"question {number}" for number in range(24)]


def calls(nodes: list[RedisServer], command: str) -> list[int]:
    said = [node.command("INFO", "commandstats") for node in nodes]
    return [
        (
            int(each.split(f"cmdstat_{command}:calls=")[1].split(",")[0])
            if f"_{command}:" in each
            else 0
        )
        for each in said
    ]


async def test_each_question_lives_in_one_place(cluster: list[RedisServer], url: str) -> None:
    before = Since()
    async with tier_on(url) as tier:
        for tag in QUESTIONS:
            await written(tier, *range(50), tag=tag)
        for tag in QUESTIONS:
            assert await tier.get_many([key_of(each, tag) for each in range(50)]) == [
                score_of(each) for each in range(50)
            ]

    assert sum(calls(cluster, "mget")) == len(QUESTIONS)  # one each, although there are fifty keys
    assert all(calls(cluster, "mget"))  # and every node has some
    assert sum(int(node.command("DBSIZE")) for node in cluster) == 50 * len(QUESTIONS)
    assert (before("get"), before("set")) == ({}, {})


async def test_a_slot_that_moves_is_followed(cluster: list[RedisServer], url: str) -> None:
    before = Since()
    async with tier_on(url) as tier:
        await written(tier, "a")
        (home,) = [node for node in cluster if node.command("DBSIZE") == "1"]
        target = next(node for node in cluster if node is not home)
        name = "gmr:{" + key_of("a")[:4].hex() + "}"
        slot, identity = home.command("CLUSTER", "KEYSLOT", name), target.command("CLUSTER", "MYID")
        home.command("FLUSHALL")
        for node in (target, *cluster):
            assert node.command("CLUSTER", "SETSLOT", slot, "NODE", identity) == "OK"

        assert await tier.get_many([key_of("a")]) == [None]
        assert await back(tier, "a")
        assert target.command("DBSIZE") == "1"

    assert (before("get"), before("set")) == ({}, {})


async def test_a_node_that_dies_takes_only_its_own_questions_with_it(
    cluster: list[RedisServer], url: str
) -> None:
    async with tier_on(url) as tier:
        for tag in QUESTIONS:
            await written(tier, "a", tag=tag)

        async def found() -> set[str]:
            scores = {tag: (await tier.get_many([key_of("a", tag)]))[0] for tag in QUESTIONS}
            assert set(scores.values()) <= {None, score_of("a")}
            return {tag for tag, score in scores.items() if score}

        assert await found() == set(QUESTIONS)
        lost = int(cluster[2].command("DBSIZE"))
        cluster[2].kill()

        async def the_others_are_found() -> bool:
            return len(await found()) == len(QUESTIONS) - lost

        await holds(the_others_are_found)
        cluster[2].start()
        for tag in QUESTIONS:
            await holds(partial(back, tier, "b", tag))
