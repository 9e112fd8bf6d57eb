"""The limit of open connections, and the connections that are evicted for others."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web.connection_limit import SPARE, ConnectionTable

steps = st.lists(
    st.tuples(st.sampled_from(["enter", "busy", "idle", "leave"]), st.integers(0, 50)), max_size=150
)


class Client:
    """A connection that remembers whether it was given up."""

    def __init__(self) -> None:
        self.evicted = self.beyond = self.idle = False

    def evict(self) -> None:
        assert not self.evicted
        self.evicted = True


@given(st.integers(1, 6), steps)
def test_no_more_than_the_limit_are_kept_and_only_idle_ones_are_evicted(
    limit: int, taken: list[tuple[str, int]]
) -> None:
    table = ConnectionTable(limit)
    clients: list[Client] = []
    for step, number in taken:
        present = [each for each in clients if not each.evicted]
        if step == "enter":
            client = Client()
            waiting = [each for each in present if each.idle and not each.beyond]
            full = sum(not each.beyond for each in present) >= limit
            client.beyond = table.add(client)
            client.idle = not client.beyond
            assert client.beyond == (full and not waiting)
            assert [each.evicted for each in waiting] == [full, *[False] * (len(waiting) - 1)][
                : len(waiting)
            ]
            clients.append(client)
        elif present:
            client = present[number % len(present)]
            if step == "leave":
                table.remove(client)
                clients.remove(client)
            elif step == "busy":
                table.mark_busy(client)
                client.idle = False
            elif not client.idle:
                table.mark_idle(client)
                client.idle = not client.beyond
                clients.remove(client)
                clients.append(client)  # it is now the one that has been idle for the shortest time
        assert sum(not (each.beyond or each.evicted) for each in clients) <= limit


def test_over_the_limit_the_oldest_is_evicted_so_that_health_is_answered() -> None:
    table = ConnectionTable(1)
    busy = Client()
    assert not table.add(busy)
    table.mark_busy(busy)
    others = [Client() for _ in range(SPARE + 10)]
    assert all(table.add(each) for each in others)
    assert [each.evicted for each in others] == [True] * 10 + [False] * SPARE
    assert not busy.evicted
    table.remove(busy)
    assert not table.add(Client())


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (64, 64, 4_096),
        (256, 256, 4_096),
        (1_024, 1_024, 4_096),
        (256, 1_024, 100),
        (256, 4_096, 4_096),
    ],
)
def test_the_limit_leaves_other_files_and_raises_the_soft_limit(
    soft: int, hard: int, wanted: int
) -> None:
    program = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from service.web.connection_limit import fit_to_open_files\n"
        f"print(fit_to_open_files({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    fitted, soft_now, hard_now = map(int, output.split())
    assert hard_now == hard
    assert soft <= soft_now <= hard
    assert 1 <= fitted <= wanted
    assert fitted == 1 or fitted + SPARE + 64 <= soft_now - 64
    assert fitted == wanted or soft_now == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
