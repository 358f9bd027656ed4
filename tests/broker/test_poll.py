"""A poll of the fleet: what it sees, and how few commands it takes."""

import time
from collections.abc import Iterator

import pytest
import redis

from morag_queue.broker.keys import Keys
from morag_queue.broker.poll import FleetPoller
from tests.support.simulated_fleet import SimulatedFleet


@pytest.fixture
def poller(client: redis.Redis) -> FleetPoller:
    return FleetPoller(client, Keys())


def commands(client: redis.Redis) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in client.info("commandstats").items()}


def test_a_poll_of_an_idle_fleet_takes_six_commands(client, poller, sim_fleet):
    sim_fleet.join("cpu-1")
    assert poller.poll().waiting == {}, "the first poll asks for all lengths"
    client.config_resetstat()
    assert poller.poll().waiting == {}
    found = commands(client)
    assert {name: found[name] for name in found.keys() - {"config|resetstat"}} == {
        "client|list": 1, "info": 1, "hgetall": 3, "exists": 1,
    }  # fmt: skip


def test_a_poll_counts_what_waits_in_shared_lanes_that_are_not_paused(client, poller, sim_fleet):
    sim_fleet.submit("a", "b")
    sim_fleet.submit("c", priority="URGENT")
    client.lpush("gpu_priority", "x")
    client.lpush("cpu_standard.cpu-1", "x")
    client.sadd(Keys().paused, "gpu_priority")
    client.set("cpu_batch", "not a list")
    for _ in range(2):
        assert poller.poll().waiting == {"cpu_standard": 3}


def test_a_poll_sees_what_waits_where_nothing_did_before(poller, sim_fleet):
    assert [poller.poll().waiting for _ in range(2)] == [{}, {}]
    sim_fleet.submit("a")
    assert poller.poll().waiting == {"cpu_standard": 1}


def test_a_poll_has_the_clock_and_the_start_of_the_server(client, poller):
    found = poller.poll()
    seconds, micros = client.time()
    assert 0 <= seconds + micros / 1e6 - found.at < 60
    assert found.at - found.up_since == pytest.approx(client.info("server")["uptime_in_seconds"], abs=60)


@pytest.fixture
def clerk(client: redis.Redis, valkey: str) -> Iterator[redis.Redis]:
    """A login that may use neither INFO nor CLIENT LIST."""
    client.acl_setuser("clerk", enabled=True, nopass=True, keys="*", commands=["+@all", "-info", "-client|list"])
    with redis.Redis.from_url(valkey, username="clerk", password="any") as login:
        yield login
    client.acl_deluser("clerk")


def test_a_poll_does_without_what_the_login_may_not_read(clerk, sim_fleet: SimulatedFleet):
    sim_fleet.submit("a")
    found = FleetPoller(clerk, Keys()).poll()
    assert (found.names, found.up_since, found.waiting) == (None, float("-inf"), {"cpu_standard": 1})
    assert abs(found.at - time.time()) < 60
