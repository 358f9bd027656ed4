"""What a command or a worker costs the server: round trips, bytes and commands, as upper bounds with a little room.

They are counted, not timed, so they are the same on every machine. Where a change needs more, raise the bound and say
why in the commit.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from morag_queue.agent.claim_request import ClaimCall, ClaimLane, claim_call
from morag_queue.broker.codec import ended_record
from morag_queue.broker.ledger import TaskEnd
from morag_queue.broker.poll import FleetPoller
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.scripts import Script
from morag_queue.core.balancing.state import BalancerState
from morag_queue.local.server import Server
from morag_queue.local.waiting import until
from morag_queue.settings import Settings
from morag_queue.watch.turn import PollEvidence, step
from tests.cli.conftest import Mq, mq
from tests.support.fleet import Fleet
from tests.support.round_trips import CountingProxy, RoundTrip
from tests.support.simulated_fleet import SimulatedFleet

__all__ = ["mq"]  # a fixture

WORKERS = 3

MOST_COMMANDS = {"claim": 11, "settle": 24}


@pytest.fixture
def proxy(valkey_server: Server, sim_fleet: SimulatedFleet) -> Iterator[CountingProxy]:
    """In front of a server with three workers and one waiting task."""
    for number in range(WORKERS):
        sim_fleet.join(f"w{number}", slots=2)
    sim_fleet.submit("waiting")
    with CountingProxy(valkey_server.port) as counting:
        yield counting


@pytest.fixture
def run(mq: Mq, proxy: CountingProxy) -> Callable[..., list[RoundTrip]]:
    """Run a command twice, so that the server knows its scripts; return the round trips of the second run."""

    def second_run(*args: str) -> list[RoundTrip]:
        for _ in range(2):
            proxy.round_trips()
            mq(*args, "--json", env={"REDIS_URL": proxy.url})
        return proxy.round_trips()

    return second_run


def names(trips: list[RoundTrip]) -> list[list[str]]:
    return [trip.commands for trip in trips]


def sent(trips: list[RoundTrip]) -> int:
    return sum(trip.sent for trip in trips)


def received(trips: list[RoundTrip]) -> int:
    return sum(trip.received for trip in trips)


def commands(client: redis.Redis) -> Counter[str]:
    """The commands that the server ran since `config_resetstat`, also those within scripts."""
    stats = client.info("commandstats")
    calls = Counter({name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()})
    for name in ("config|resetstat", "info", "evalsha"):
        del calls[name]
    return calls


# -- commands


def test_submit_of_one_file_takes_two_round_trips(run: Callable[..., list[RoundTrip]], tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_text("MoRAG " * 300)

    trips = run("submit", str(file))

    assert names(trips) == [["observe"], ["submit"]]
    assert sent(trips) <= 3_400
    assert received(trips) <= 4_600


def test_stats_takes_one_round_trip(run: Callable[..., list[RoundTrip]]) -> None:
    trips = run("stats")

    # A second one reads the counters of a minute that has just begun.
    assert [set(trip.commands) for trip in trips][:1] == [{"observe", "hgetall", "hget"}]
    assert len(trips) == 1 or trips[1].commands == ["hgetall", "hgetall", "hget"]
    assert sent(trips) <= 3_300
    assert received(trips) <= 4_500


def test_a_turn_of_watch_reads_the_fleet_in_two_round_trips(proxy: CountingProxy) -> None:
    broker = RedisBroker(Settings(redis_url=proxy.url))
    state = BalancerState()
    for _ in range(2):
        proxy.round_trips()
        state = step(broker, state, PollEvidence(), term="", who="test").state
    trips = proxy.round_trips()
    broker.client.close()

    reads = [trip for trip in trips if trip.commands != ["save_state"]]
    assert [set(trip.commands) for trip in reads] == [{"observe"}, {"hgetall", "hget"}]
    assert sent(reads) <= 850
    assert received(reads) <= 4_500


def test_a_poll_of_watch_takes_one_round_trip_and_six_commands_while_nothing_waits(
    proxy: CountingProxy, sim_fleet: SimulatedFleet
) -> None:
    with redis.Redis.from_url(proxy.url) as client:
        poller = FleetPoller(client, sim_fleet.keys)
        poller.poll()
        (waiting,) = proxy.round_trips()
        assert sim_fleet.claim("w0") == "waiting"
        poller.poll()
        proxy.round_trips()
        poller.poll()
    (idle,) = proxy.round_trips()

    assert len(waiting.commands) <= 46
    assert len(idle.commands) <= 6
    assert idle.sent <= 1_200


# -- scripts


def test_the_commands_of_one_task(sim_fleet: SimulatedFleet, client: redis.Redis) -> None:
    sim_fleet.join("w1")
    lanes = [ClaimLane(name, "cpu_standard", is_own="." in name) for name in ("cpu_standard.w1", "cpu_standard")]
    claim, ledger = Script(client, sim_fleet.keys, ClaimCall), sim_fleet.broker.ledger
    for task_id in ("first", "second"):  # the first loads the scripts and creates the keys
        sim_fleet.submit(task_id)
        call = claim_call("w1", "w1.1", lanes, range(10), sim_fleet.keys, tag=task_id, before="0 1 2 3")
        record = ended_record(
            {"content_type": "web", "requires": "cpu"}, state="completed", task="t", lane="cpu_standard", worker="w1",
            started_at=1.0, wait_seconds=1.0, run_seconds=2.0,
        )  # fmt: skip
        client.config_resetstat()
        assert claim(call) is not None
        claimed = commands(client)
        client.config_resetstat()
        assert ledger.settle(TaskEnd(task_id, task_id, "w1", "cpu_standard", "completed", 1.0, 2.0, record))
        ended = commands(client)

    assert claimed.total() <= MOST_COMMANDS["claim"], claimed
    assert ended.total() <= MOST_COMMANDS["settle"], ended


# -- a worker


def is_idle(fleet: Fleet) -> bool:
    """Whether nothing waits and nothing is held."""
    return not fleet.redis.llen(fleet.keys.list("cpu_standard", 4)) and not fleet.redis.hlen(fleet.keys.held)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_busy_worker_ends_a_task_and_claims_the_next_in_one_round_trip(
    concurrency: int, make_fleet: Callable[..., Fleet]
) -> None:
    fleet, count = make_fleet(), 20
    with CountingProxy(fleet.server.port) as proxy:
        fleet.start_worker("worker-cpu-1", env={"REDIS_URL": proxy.url}, concurrency=concurrency)
        gate = fleet.release_file()
        first = [fleet.send("cpu_standard", level=0, wait_for_file=str(gate)) for _ in range(concurrency)]
        until(lambda: fleet.redis.hlen(fleet.keys.held) == concurrency, 10, lambda: f"not started: {fleet.where()}")
        tasks = [fleet.send("cpu_standard") for _ in range(count)]
        proxy.round_trips()
        gate.touch()
        fleet.until_ran([*first, *tasks])
        until(lambda: not fleet.redis.hlen(fleet.keys.held), 10, lambda: f"not settled: {fleet.where()}")
        trips = [trip for trip in proxy.round_trips() if {"claim", "settle"}.intersection(trip.commands)]
        fleet.stop()

    together = [trip for trip in trips if trip.commands[0] == "settle" and trip.commands[-1] == "claim"]
    ended = sum(trip.commands.count("settle") for trip in together)
    assert count - concurrency <= ended <= count + concurrency, names(trips)
    assert len(trips) <= count + 4 * concurrency, names(trips)
    assert max(trip.sent / len(trip.commands) for trip in together) <= 950


def test_a_message_costs_at_most_four_scripts_however_many_workers_are_idle() -> None:
    workers, messages = 16, 40
    with Fleet(agent=False) as fleet:
        arguments = [fleet.url, str(workers), "agent", "w", "1000"]  # none looks for work by itself
        fleet.sandbox.fork("workers", "tests.support.channel_workers", arguments, fleet.env)
        until(lambda: "ready" in fleet.log("workers"), 30, lambda: fleet.log("workers"))
        fleet.send("cpu_standard")  # the server has all scripts afterwards
        until(lambda: fleet.redis.hlen(fleet.keys.current), 10, lambda: f"did not run: {fleet.where()}")
        until(lambda: fleet.redis.zcard(fleet.keys.waiting("cpu_standard")) == workers - 1, 10, "not all are idle")
        fleet.redis.config_resetstat()
        for number in range(1, messages + 1):
            fleet.send("cpu_standard")
            until(lambda: is_idle(fleet), 10, lambda: f"not settled: {fleet.where()}")
            until(partial(has_called, fleet, 4 * number), 10, lambda: f"{scripts(fleet)} scripts so far")


def has_called(fleet: Fleet, number: int) -> bool:
    return scripts(fleet) == number


def scripts(fleet: Fleet) -> int:
    """The scripts that the server ran since `config_resetstat`."""
    calls: int = fleet.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls
