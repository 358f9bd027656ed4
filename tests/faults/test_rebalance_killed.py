"""`rebalance` killed at any point: each message is in one place, and the next run finishes the work."""

import json
from itertools import count

import pytest
import redis

from morag_queue.broker.redis import RedisBroker
from morag_queue.errors import LeaseHeld
from morag_queue.operations.rebalance import run_once
from morag_queue.settings import Settings
from tests.support.simulated_fleet import SimulatedFleet


class Killed(BaseException):
    """The process was killed: no later command reaches the server."""


class Doomed(redis.Connection):
    """Sends a fixed number of times, then fails."""

    remaining = 0

    def send_packed_command(self, *args, **kwargs):
        if Doomed.remaining <= 0:
            raise Killed
        Doomed.remaining -= 1
        return super().send_packed_command(*args, **kwargs)


def stage_of(url: str) -> SimulatedFleet:
    """Nine tasks in the lanes of a dead worker, two starving tasks, and a live worker."""
    sim_fleet = SimulatedFleet(url)
    sim_fleet.client.flushall()
    sim_fleet.join("gone")
    sim_fleet.join("live", slots=4)
    sim_fleet.submit(*(f"s{n}" for n in range(9)), worker="gone")
    sim_fleet.client.hset(sim_fleet.keys.beats, "gone", json.dumps({"at": sim_fleet.broker.now(), "stopped": True}))
    now, sim_fleet.broker.now = sim_fleet.broker.now, lambda: now() - 3 * 3600
    sim_fleet.fill(["old-1", "old-2"])
    sim_fleet.broker.now = now
    return sim_fleet


def places(sim_fleet: SimulatedFleet) -> dict[str, list[str]]:
    lists = {"shared": ("cpu_standard", 4), "own": ("cpu_standard.gone", 4), "front": ("cpu_standard", 1)}
    return {name: sim_fleet.ids(*place) for name, place in lists.items()}


@pytest.mark.parametrize("seconds_later", ["at once", "after the lease has run out"])
def test_a_run_killed_at_any_point_loses_and_duplicates_nothing(valkey, seconds_later):
    for sent in count():
        sim_fleet = stage_of(valkey)
        Doomed.remaining = sent
        pool = redis.ConnectionPool.from_url(valkey, connection_class=Doomed)
        broker = RedisBroker(Settings(redis_url=valkey), client=redis.Redis(connection_pool=pool))
        try:
            run_once(broker, broker.settings, who="ann")
            was_killed = False
        except Killed:
            was_killed = True
        found = places(sim_fleet)
        assert sorted(task_id for ids in found.values() for task_id in ids) == sorted(
            [f"s{n}" for n in range(9)] + ["old-1", "old-2"]
        ), f"killed after {sent} sends"
        if seconds_later == "at once" and sim_fleet.broker.leases.current() is not None:
            with pytest.raises(LeaseHeld, match="ann leads"):
                run_once(sim_fleet.broker, sim_fleet.settings, who="bob")
        sim_fleet.client.delete(sim_fleet.keys.lease)  # as its expiry does
        run_once(sim_fleet.broker, sim_fleet.settings, who="bob")
        assert places(sim_fleet) == {
            "own": [], "front": ["old-1", "old-2"], "shared": [f"s{n}" for n in range(9)],
        }, f"killed after {sent} sends"  # fmt: skip
        if not was_killed:
            assert sent > 5
            return
