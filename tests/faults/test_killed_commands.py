"""Commands that are killed at any step: the connection is cut at each send, before, within and after the command.

To the server a killed client is a connection that closes in the middle of a send: it runs the commands that arrived
whole.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from morag_queue.broker.redis import RedisBroker
from morag_queue.operations.drain import Drain
from morag_queue.operations.drain_options import DrainOptions, DrainProgress
from morag_queue.operations.failover import Failover
from morag_queue.operations.sweep import Sweep
from tests.support.simulated_fleet import SimulatedFleet

TASKS = [f"t-{n:03d}" for n in range(300)]
HELD = 3


class KilledError(BaseException):
    """The code under test does not catch it, as it cannot catch SIGKILL."""


class Scissors:
    """Cuts the connection at the n-th send, once a share of the command was sent."""

    def __init__(self, at: int, share: float) -> None:
        self.left, self.share = at, share

    def client(self, url: str) -> redis.Redis:
        scissors = self

        class Cut(redis.Connection):
            def send_packed_command(self, command: Any, check_health: bool = True) -> None:
                scissors.left -= 1
                if scissors.left:
                    super().send_packed_command(command, check_health)
                    return
                whole = command if isinstance(command, bytes) else b"".join(command)
                super().send_packed_command([whole[: int(len(whole) * scissors.share)]], check_health)
                self.disconnect()
                raise KilledError

        pool = redis.ConnectionPool.from_url(url, connection_class=Cut)
        return redis.Redis(connection_pool=pool)


def drain(broker: RedisBroker) -> None:
    answer = Drain(broker, "cpu-1", DrainOptions(who="ann", force=True), DrainProgress(pause=lambda _: None)).run()
    assert answer.state == "drained"


def failover(broker: RedisBroker) -> None:
    Failover(broker, who="ann", pause=lambda _: None).run_named(["cpu-1"])


def failover_dead(broker: RedisBroker) -> None:
    Failover(broker, who="ann", pause=lambda _: None).run_dead(Sweep(broker))


def scene(sim_fleet: SimulatedFleet) -> None:
    """Set up: cpu-1 is dead, holds some tasks and has many in its lane; cpu-2 is idle."""
    sim_fleet.client.flushall()
    sim_fleet.join("cpu-1", client_name="mq.absent", slots=HELD)
    sim_fleet.join("cpu-2", client_name="mq.another")
    sim_fleet.fill(TASKS)
    assert [sim_fleet.claim("cpu-1") for _ in range(HELD)] == TASKS[:HELD]
    sim_fleet.broker.moves.lane("cpu_standard", "cpu_standard.cpu-1", 4, len(TASKS))
    sim_fleet.client.sadd(sim_fleet.keys.lanes, "cpu_standard.cpu-1")
    beat = json.loads(sim_fleet.client.hget(sim_fleet.keys.beats, "cpu-1"))
    sim_fleet.client.hset(sim_fleet.keys.beats, "cpu-1", json.dumps(beat | {"at": beat["at"] - 600}))


def everywhere(sim_fleet: SimulatedFleet) -> list[str]:
    """Return the task ids of all messages: first those in lanes, next to run first, then the unacked ones."""
    lists = ("cpu_standard", "cpu_standard.cpu-1")
    waiting = [task_id for lane in lists for level in range(10) for task_id in sim_fleet.ids(lane, level)]
    return waiting + [json.loads(raw)[0]["headers"]["id"] for raw in sim_fleet.client.hvals(sim_fleet.keys.unacked)]


def cuts(sim_fleet: SimulatedFleet, share: float) -> Iterator[Scissors]:
    """Set up the fleet again for each cut; each is one step later than the one before."""
    at = 0
    while True:
        at += 1
        scene(sim_fleet)
        yield Scissors(at, share)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("command", [drain, failover, failover_dead])
def test_a_command_killed_at_any_step_loses_no_message_and_the_next_run_finishes(
    sim_fleet: SimulatedFleet, command: Callable[[RedisBroker], None], share: float
):
    for steps, scissors in enumerate(cuts(sim_fleet, share)):
        with scissors.client(sim_fleet.url) as client:
            broker = RedisBroker(sim_fleet.settings, client)
            broker.__dict__["control"] = NoControl()
            try:
                command(broker)
            except KilledError:
                client.connection_pool.disconnect()
            else:
                break
        assert sorted(everywhere(sim_fleet)) == TASKS, f"killed at step {steps}"

        sim_fleet.broker.__dict__["control"] = NoControl()
        command(sim_fleet.broker)

        assert sorted(everywhere(sim_fleet)) == TASKS, f"after the run that followed a kill at step {steps}"
        assert sim_fleet.ids("cpu_standard", 4)[:HELD] == TASKS[:HELD]
        assert sim_fleet.ids("cpu_standard.cpu-1", 4) == []
        assert sim_fleet.client.hlen(sim_fleet.keys.unacked) == sim_fleet.client.hlen(sim_fleet.keys.held) == 0
    assert steps > 5, "the command was killed at each of its steps"


class NoControl:
    """A control channel on which no worker answers."""

    def refresh_cordon(self, nodes: Any) -> None:
        pass

    def ping(self, nodes: Any = None) -> list[str]:
        return []
