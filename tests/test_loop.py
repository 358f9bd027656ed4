"""`Watch` in a thread on a real broker. `tests.support.simulated_fleet` simulates the workers."""

from collections.abc import Callable, Iterator
from threading import Event as Signal
from threading import Thread
from typing import Any

import pytest

from morag_queue.broker.connection import connect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.failure import RecoveryPolicy
from morag_queue.core.policy import BalancingPolicy, Policy
from morag_queue.errors import LeaseHeld
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.local.waiting import until
from morag_queue.settings import Settings
from morag_queue.watch.events import EVENTS, Event
from morag_queue.watch.loop import Watch
from tests.support.simulated_fleet import connected


class RecordedEvents:
    """An event sink that records events and checks their fields against `EVENTS`."""

    def __init__(self) -> None:
        self.all: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, /, **fields: Any) -> None:
        assert set(fields) == set(EVENTS[event].fields), event
        self.all.append((event, fields))

    def of(self, event: Event) -> list[dict[str, Any]]:
        return [fields for recorded, fields in self.all if recorded is event]


class Running:
    """A `Watch` in a thread."""

    def __init__(self, broker: RedisBroker, **options: Any) -> None:
        self.events, self._stop = RecordedEvents(), Signal()
        self.watch = Watch(broker, who="ann@here", emit=self.events, **options)
        self._thread = Thread(target=self.watch.run, args=[self._stop], daemon=True)
        self._thread.start()

    def until(self, event: Event, count: int = 1, seconds: float = 15) -> dict[str, Any]:
        until(lambda: len(self.events.of(event)) >= count, seconds, lambda: f"no {event}: {self.events.all}")
        return self.events.of(event)[count - 1]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def start(valkey) -> Iterator[Callable[..., Running]]:
    """Start loops on the stage's broker, each with its own client and, by default, a slow tick."""
    running: list[Running] = []

    def start_loop(policy: Policy | None = None, **options: Any) -> Running:
        settings = Settings(redis_url=valkey, policy=policy or Policy())
        broker = RedisBroker(settings, connect(valkey, settings.broker, name="mq.watch"))
        running.append(Running(broker, **options))
        return running[-1]

    yield start_loop
    for loop in running:
        loop.stop()
        loop.watch._broker.client.close()


@pytest.fixture
def dead_worker(valkey, sim_fleet) -> Callable[[str], None]:
    """Register a worker that claims a task over a named connection and dies: its connection closes."""

    def die(name: str, **more: Any) -> None:
        with connected(valkey, f"mq.{name}"):
            sim_fleet.join(name, client_name=f"mq.{name}", beat_seconds=1.0, **more)
            assert sim_fleet.claim(name)

    return die


# -- the loop


def test_watch_leads_reports_the_fleet_and_releases_the_lease_when_stopped(sim_fleet, start):
    running = start()
    running.until(Event.FLEET)
    assert sim_fleet.broker.leases.current().who == "ann@here"
    running.stop()
    assert sim_fleet.broker.leases.current() is None
    # The scripts are loaded already if another test used the server before.
    names = [event for event, _ in running.events.all if event is not Event.SCRIPTS_LOADED]
    assert names == [Event.STARTED, Event.LEADING, Event.FLEET, Event.LEASE_GIVEN_UP, Event.STOPPED]


def test_a_second_watch_stands_by_and_takes_over_when_the_first_stops(sim_fleet, start):
    first = start()
    first.until(Event.LEADING)
    second = start()
    assert second.until(Event.STANDING_BY)["leader"] == "ann@here"
    assert not second.events.of(Event.LEADING)
    first.stop()
    assert second.until(Event.LEADING)["term"] > first.events.of(Event.LEADING)[0]["term"]


def test_watch_takes_over_when_the_lease_of_a_dead_leader_expires(sim_fleet, start):
    sim_fleet.broker.leases.take("a leader that died", "bob", "watch", 1.5)
    assert start().until(Event.LEADING)["term"] == 2


def test_watch_reports_workers_that_join_leave_and_are_cordoned(sim_fleet, start):
    running = start()
    running.until(Event.FLEET)
    sim_fleet.join("worker-cpu-1")
    assert running.until(Event.JOINED) == {"worker": "worker-cpu-1"}
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    assert running.until(Event.OUT_OF_SERVICE) == {"worker": "worker-cpu-1", "state": "draining"}
    sim_fleet.client.hdel(sim_fleet.keys.cordons, "worker-cpu-1")
    running.until(Event.IN_SERVICE)
    sim_fleet.broker.registry.beat("worker-cpu-1", "worker-cpu-1.1", {"stopped": True}, [])
    running.until(Event.LEFT)


def test_a_drain_triggers_a_turn_before_the_next_tick(sim_fleet, start):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.join("worker-cpu-2")
    sim_fleet.submit("a", "b", worker="worker-cpu-1")
    running = start()
    running.until(Event.FLEET)
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    assert running.until(Event.TURN, seconds=5)["trigger"] == "worker-cpu-1 out of service"
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b"]


def test_a_dead_worker_triggers_a_failover_before_the_next_tick(sim_fleet, start, dead_worker):
    running = start()
    running.until(Event.FLEET)
    sim_fleet.submit("a")
    dead_worker("worker-cpu-1")
    event = running.until(Event.FAILED_OVER)
    assert (event["workers"], event["taken_back"]) == (["worker-cpu-1"], 1)
    assert any("CLIENT LIST" in evidence for evidence in event["evidence"])
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]
    assert "overdue" in running.until(Event.TURN)["trigger"]


def test_a_worker_that_sends_heartbeats_but_takes_no_tasks_is_reported_as_stalled(
    valkey, sim_fleet, start, monkeypatch
):
    for module in ("core.fleet_poll", "watch.report"):
        monkeypatch.setattr(f"morag_queue.{module}.STALLED_AFTER_S", 2.0)
    with connected(valkey, "mq.worker-cpu-1"):
        sim_fleet.join("worker-cpu-1", client_name="mq.worker-cpu-1")
        running = start()
        running.until(Event.FLEET)
        sim_fleet.submit("a", "b")
        beating = Signal()

        def beat() -> None:
            while not beating.wait(0.3):
                sim_fleet.beat("worker-cpu-1")

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            event = running.until(Event.STALLED)
            assert (event["worker"], event["queues"], event["waiting"]) == ("worker-cpu-1", ["cpu_standard"], 2)
            sim_fleet.claim("worker-cpu-1")
            sim_fleet.claim("worker-cpu-1")
            running.until(Event.MOVING_AGAIN)
        finally:
            beating.set()
            thread.join()


def test_watch_reports_unserved_lanes_and_foreign_messages_once(sim_fleet, start):
    sim_fleet.submit("a")
    sim_fleet.client.lpush("cpu_batch", "not a message")
    running = start(monitor_interval=1.0)
    assert running.until(Event.FOREIGN) == {"count": 1}
    assert {event["lane"] for event in running.events.of(Event.LANE_STALLED)} == {"cpu_standard", "cpu_batch"}
    running.until(Event.FLEET, 3)
    assert len(running.events.of(Event.FOREIGN)) == 1


def test_the_sweep_resends_a_task_that_is_missing_on_the_broker(sim_fleet, start):
    policy = Policy(recovery=RecoveryPolicy(lost_after_seconds=0.1))
    running = start(policy)
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("lost")
    sim_fleet.client.delete("cpu_standard\x06\x164")
    assert running.until(Event.TURN, seconds=30)["resent"] == 1
    assert sim_fleet.ids("cpu_standard", 4) == ["lost"]


# -- failures


def test_a_repeated_error_is_reported_once_and_the_loop_continues(sim_fleet, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    sim_fleet.client.set(sim_fleet.keys.workers, "a key of the wrong type")
    assert "mq:workers: the key has another type than ours" in running.until(Event.TURN_FAILED)["error"]
    until(lambda: running.watch.failures.count >= 3, 15, "no further turn")
    assert len(running.events.of(Event.TURN_FAILED)) == 1
    sim_fleet.client.delete(sim_fleet.keys.workers)
    assert running.until(Event.TURN_WORKS_AGAIN)["failed_turns"] >= 3


def test_successful_polls_do_not_end_the_failures_of_turns(sim_fleet, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    sim_fleet.client.set(sim_fleet.keys.lanes, "a key of the wrong type")
    running.until(Event.TURN_FAILED)
    until(lambda: running.watch.failures.count >= 3, 25, "no further turn")
    assert len(running.events.of(Event.TURN_FAILED)) == 1
    assert not running.events.of(Event.TURN_WORKS_AGAIN)
    sim_fleet.client.delete(sim_fleet.keys.lanes)
    running.until(Event.TURN_WORKS_AGAIN, seconds=30)


def test_watch_reports_and_survives_a_read_only_server(sim_fleet, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    try:
        sim_fleet.client.replicaof("127.0.0.1", "1")
        assert "read only" in running.until(Event.TURN_FAILED, seconds=30)["error"]
    finally:
        sim_fleet.client.replicaof("no", "one")
    running.until(Event.TURN_WORKS_AGAIN, seconds=30)


def test_watch_loads_flushed_scripts_again(sim_fleet, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    turns = running.watch.turns
    sim_fleet.client.script_flush()
    until(lambda: running.watch.turns >= turns + 2, 15, "no further turn")
    assert not running.events.of(Event.TURN_FAILED)


def test_watch_reconnects_after_a_server_restart():
    with Sandbox() as sandbox:
        server = Server(sandbox, persist=True)
        settings = Settings(redis_url=server.url, policy=Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
        running = Running(RedisBroker(settings))
        running.until(Event.FLEET)
        server.kill()
        assert "cannot reach the broker" in running.until(Event.BROKER_LOST)["error"]
        server.start()
        running.until(Event.BROKER_BACK)
        turns = running.watch.turns
        until(lambda: running.watch.turns > turns, 15, "no turn after it")
        assert len(running.events.of(Event.BROKER_LOST)) == 1
        running.stop()
        running.watch._broker.client.close()


def test_a_leader_that_was_suspended_past_its_lease_stands_by(sim_fleet, start):
    """Its local clock stood still, so only the server's clock shows that the lease expired."""
    clock = [0.0]
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)), clock=lambda: clock[0], lease_seconds=1.0)
    running.until(Event.LEADING)
    until(lambda: sim_fleet.broker.leases.current() is None, 10, "the lease did not expire")
    sim_fleet.broker.leases.take("another", "bob", "watch", 30)
    clock[0] += 1.0
    running.until(Event.LEASE_LOST)
    assert running.until(Event.STANDING_BY)["leader"] == "bob"
    assert sim_fleet.broker.leases.current().holder == "another"


def test_once_makes_one_turn_and_releases_the_lease(sim_fleet):
    events = RecordedEvents()
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("a")
    sim_fleet.claim("worker-cpu-1")
    report = Watch(sim_fleet.broker, who="ann", emit=events).once()
    assert report.trigger == "once"
    assert sim_fleet.broker.leases.current() is None
    sim_fleet.broker.leases.take("another", "bob", "watch", 30)
    with pytest.raises(LeaseHeld, match="bob leads the fleet"):
        Watch(sim_fleet.broker, who="ann", emit=events).once()


def test_watch_reports_a_value_that_it_cannot_read_once_and_goes_on(sim_fleet, start):
    sim_fleet.join("cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.totals, "completed|cpu-1", "x")
    sim_fleet.client.set(sim_fleet.keys.lease, "x")
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)), monitor_interval=1.0)
    found = running.until(Event.BROKEN_VALUE)
    assert found == {
        "key": "mq:totals", "field": "completed|cpu-1", "reason": "the counter is no number",
        "remedy": "it counts again from zero after: HDEL mq:totals completed|cpu-1",
    }  # fmt: skip
    until(lambda: len(running.events.of(Event.FLEET)) >= 3, 15, "no further turn")
    assert len(running.events.of(Event.BROKEN_VALUE)) == 1
    assert not running.events.of(Event.TURN_FAILED)
