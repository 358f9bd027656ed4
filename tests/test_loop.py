"""The loop on a real broker: turns driven by hand, and `Watch` in a thread, whose workers are words (`stage`)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Signal
from threading import Thread
from typing import Any

import pytest
import redis

from morag_queue.broker.connection import connect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.failure import RecoveryPolicy
from morag_queue.core.policy import BalancingPolicy, Policy
from morag_queue.errors import LeaseHeld, LeaseLost
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.local.waiting import until
from morag_queue.settings import Settings
from morag_queue.watch.events import EVENTS, Event
from morag_queue.watch.loop import Watch
from morag_queue.watch.turn import PollEvidence, step
from tests.support.simulated_fleet import SimulatedFleet


class Told:
    """The events of one loop; each has just the fields that the table says."""

    def __init__(self) -> None:
        self.all: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, /, **fields: Any) -> None:
        assert set(fields) == set(EVENTS[event].fields), event
        self.all.append((event, fields))

    def of(self, event: Event) -> list[dict[str, Any]]:
        return [fields for one, fields in self.all if one is event]


class Running:
    """A `Watch` in a thread."""

    def __init__(self, broker: RedisBroker, **options: Any) -> None:
        self.told, self._stop = Told(), Signal()
        self.watch = Watch(broker, who="ann@here", tell=self.told, **options)
        self._thread = Thread(target=self.watch.run, args=[self._stop], daemon=True)
        self._thread.start()

    def until(self, event: Event, count: int = 1, seconds: float = 15) -> dict[str, Any]:
        until(lambda: len(self.told.of(event)) >= count, seconds, lambda: f"no {event}: {self.told.all}")
        return self.told.of(event)[count - 1]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def start(valkey) -> Iterator[Callable[..., Running]]:
    """Starts loops on the stage's broker, each with a client of its own, by default of a slow tick."""
    running: list[Running] = []

    def begin(policy: Policy | None = None, **options: Any) -> Running:
        settings = Settings(redis_url=valkey, policy=policy or Policy())
        broker = RedisBroker(settings, connect(valkey, settings.broker, name="mq.watch"))
        running.append(Running(broker, **options))
        return running[-1]

    yield begin
    for one in running:
        one.stop()
        one.watch._broker.client.close()


@pytest.fixture
def dead_worker(valkey, stage) -> Callable[[str], None]:
    """Registers a worker with a connection of its name, which takes a task and dies: the connection is closed."""

    def die(name: str, **more: Any) -> None:
        with connected(valkey, f"mq.{name}"):
            stage.join(name, client_name=f"mq.{name}", beat_seconds=1.0, **more)
            assert stage.claim(name)

    return die


@contextmanager
def connected(url: str, name: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, client_name=name) as client:
        client.ping()
        yield client


# -- one turn


def turn(stage: SimulatedFleet, evidence: PollEvidence = PollEvidence(), term: str = "", **more: Any) -> Any:  # noqa: B008
    return step(stage.broker, BalancerState(), evidence, term=term, who="ann", pause=lambda _: None, **more)


def test_a_fleet_that_is_balanced_gives_an_empty_turn(stage):
    stage.join("worker-cpu-1")
    stage.submit("a")
    done = turn(stage)
    assert not done.report.has_changed
    assert done.report.rules == {}
    assert stage.broker.journal.latest(5) == []


def test_what_a_dead_worker_held_goes_first_in_line(stage):
    stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    stage.submit("a", "b", "c")
    assert stage.claim("worker-cpu-1") == "a"
    done = turn(stage, PollEvidence(absent=frozenset({"worker-cpu-1"})))
    assert (done.report.taken_back, done.report.moved) == (1, 0)
    assert stage.ids("cpu_standard", 4) == ["a", "b", "c"]
    assert [one.verb for one in stage.broker.journal.latest(5)] == ["failover"]
    assert "worker-cpu-1" in stage.broker.journal.latest(1)[0].subject


def test_a_dead_worker_that_left_nothing_is_not_touched(stage):
    stage.join("worker-cpu-1")
    done = turn(stage, PollEvidence(absent=frozenset({"worker-cpu-1"})))
    assert done.report.failed_over is None
    assert not done.snapshot.worker_by_id["worker-cpu-1"].fenced


def test_one_that_came_back_does_not_keep_the_others_waiting(valkey, stage):
    for name in ("worker-cpu-1", "worker-cpu-2"):
        stage.join(name, client_name=f"mq.{name}")
    stage.submit("a", "b")
    stage.claim("worker-cpu-1")
    stage.claim("worker-cpu-2")
    with connected(valkey, "mq.worker-cpu-2"):
        done = turn(stage, PollEvidence(absent=frozenset({"worker-cpu-1", "worker-cpu-2"})))
    assert done.report.taken_back == 1
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_a_silent_worker_that_is_connected_is_fenced_first(valkey, stage):
    stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    stage.submit("a")
    stage.claim("worker-cpu-1")
    stage.client.hset(stage.keys.beats, "worker-cpu-1", '{"at": 1000.0}')
    with connected(valkey, "mq.worker-cpu-1"):
        done = turn(stage, PollEvidence(silent=frozenset({"worker-cpu-1"})))
    assert done.report.taken_back == 1
    assert stage.broker.observe()[0].worker_by_id["worker-cpu-1"].fenced


def test_lanes_of_a_draining_worker_are_emptied_and_the_line_says_by_which_rule(stage):
    stage.join("worker-cpu-1")
    stage.join("worker-cpu-2")
    stage.submit("a", "b", worker="worker-cpu-1")
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    done = turn(stage)
    assert (done.report.moved, done.report.rules) == (2, {"evacuation": 2})
    assert stage.broker.journal.latest(1)[0].verb == "watch"


def test_a_dry_run_says_what_it_would_do_and_does_nothing(stage):
    stage.join("worker-cpu-1")
    stage.submit("a", worker="worker-cpu-1")
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    done = turn(stage, dry_run=True)
    assert not done.report.has_changed
    assert [one.source_lane for one in done.report.decisions] == ["cpu_standard.worker-cpu-1"]
    assert stage.ids("cpu_standard.worker-cpu-1", 4) == ["a"]


def test_a_flapping_worker_is_taken_out_of_service_for_a_while(stage):
    stage.join("worker-cpu-1")
    done = turn(stage, PollEvidence(flapping={"worker-cpu-1": 5}))
    assert done.report.opened_breakers == ("worker-cpu-1",)
    cordon = stage.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon
    assert (cordon.state, cordon.who) == ("cordoned", "circuit breaker")
    assert cordon.until == pytest.approx(cordon.at + 300)
    assert "started 5 times" in cordon.reason


def test_a_persons_own_cordon_stands_over_the_breaker(stage):
    stage.join("worker-cpu-1")
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "drained", "who": "ann"}')
    assert turn(stage, PollEvidence(flapping={"worker-cpu-1": 5})).report.opened_breakers == ()
    assert stage.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon.who == "ann"


@pytest.mark.parametrize("what", ["failover", "drain", "breaker", "nothing"])
def test_a_leader_that_was_superseded_changes_nothing(stage, what):
    stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    stage.submit("held", "waits")
    stage.submit("pinned", worker="worker-cpu-1")
    stage.claim("worker-cpu-1")
    if what == "drain":
        stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    evidence = PollEvidence(
        absent=frozenset({"worker-cpu-1"} if what == "failover" else ()),
        flapping={"worker-cpu-1": 9} if what == "breaker" else {},
    )
    old = stage.broker.leases.take("old", "ann", "watch", 30)
    assert stage.broker.leases.give_up(old)
    stage.broker.leases.take("new", "bob", "watch", 30)
    before = {key: stage.client.dump(key) for key in stage.client.scan_iter()}
    with pytest.raises(LeaseLost):
        turn(stage, evidence, term=str(old.term))
    assert {key: stage.client.dump(key) for key in stage.client.scan_iter()} == before


# -- the loop


def test_it_leads_looks_and_hands_the_lease_over_when_it_is_stopped(stage, start):
    running = start()
    running.until(Event.FLEET)
    assert stage.broker.leases.current().who == "ann@here"
    running.stop()
    assert stage.broker.leases.current() is None
    names = [event for event, _ in running.told.all]
    assert names == [Event.STARTED, Event.LEADING, Event.FLEET, Event.LEASE_GIVEN_UP, Event.STOPPED]


def test_the_second_stands_by_and_takes_over_when_the_first_ends(stage, start):
    first = start()
    first.until(Event.LEADING)
    second = start()
    assert second.until(Event.STANDING_BY)["leader"] == "ann@here"
    assert not second.told.of(Event.LEADING)
    first.stop()
    assert second.until(Event.LEADING)["term"] > first.told.of(Event.LEADING)[0]["term"]


def test_the_second_takes_over_when_the_first_is_gone_without_a_word(stage, start):
    stage.broker.leases.take("a leader that died", "bob", "watch", 1.5)
    assert start().until(Event.LEADING)["term"] == 2


def test_a_worker_that_joins_leaves_and_is_cordoned_is_told(stage, start):
    running = start()
    running.until(Event.FLEET)
    stage.join("worker-cpu-1")
    assert running.until(Event.JOINED) == {"worker": "worker-cpu-1"}
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    assert running.until(Event.OUT_OF_SERVICE) == {"worker": "worker-cpu-1", "state": "draining"}
    stage.client.hdel(stage.keys.cordons, "worker-cpu-1")
    running.until(Event.IN_SERVICE)
    stage.broker.registry.beat("worker-cpu-1", "worker-cpu-1.1", {"stopped": True}, [])
    running.until(Event.LEFT)


def test_a_drain_is_seen_at_once_and_its_lane_emptied_long_before_the_next_tick(stage, start):
    stage.join("worker-cpu-1")
    stage.join("worker-cpu-2")
    stage.submit("a", "b", worker="worker-cpu-1")
    running = start()
    running.until(Event.FLEET)
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    assert running.until(Event.TURN, seconds=5)["trigger"] == "worker-cpu-1 out of service"
    assert stage.ids("cpu_standard", 4) == ["a", "b"]


def test_a_dead_workers_tasks_are_taken_back_without_waiting_for_a_tick(stage, start, dead_worker):
    running = start()
    running.until(Event.FLEET)
    stage.submit("a")
    dead_worker("worker-cpu-1")
    told = running.until(Event.FAILED_OVER)
    assert (told["workers"], told["taken_back"]) == (["worker-cpu-1"], 1)
    assert any("CLIENT LIST" in sign for sign in told["evidence"])
    assert stage.ids("cpu_standard", 4) == ["a"]
    assert "overdue" in running.until(Event.TURN)["trigger"]


def test_a_worker_that_beats_and_takes_nothing_is_reported_as_stalled(valkey, stage, start, monkeypatch):
    for module in ("core.fleet_poll", "watch.report"):
        monkeypatch.setattr(f"morag_queue.{module}.STALLED_AFTER_S", 2.0)
    with connected(valkey, "mq.worker-cpu-1"):
        stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
        running = start()
        running.until(Event.FLEET)
        stage.submit("a", "b")
        beating = Signal()

        def beat() -> None:
            while not beating.wait(0.3):
                stage.beat("worker-cpu-1")

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            told = running.until(Event.STALLED)
            assert (told["worker"], told["queues"], told["waiting"]) == ("worker-cpu-1", ["cpu_standard"], 2)
            stage.claim("worker-cpu-1")
            stage.claim("worker-cpu-1")
            running.until(Event.MOVING_AGAIN)
        finally:
            beating.set()
            thread.join()


def test_what_nobody_serves_and_what_is_not_celerys_is_told(stage, start):
    stage.submit("a")
    stage.client.lpush("cpu_batch", "not a message")
    running = start(monitor_interval=1.0)
    assert running.until(Event.FOREIGN) == {"count": 1}
    assert {one["lane"] for one in running.told.of(Event.LANE_STALLED)} == {"cpu_standard", "cpu_batch"}
    running.until(Event.FLEET, 3)
    assert len(running.told.of(Event.FOREIGN)) == 1


def test_a_task_that_is_nowhere_is_found_by_the_sweep_and_sent_again(stage, start):
    policy = Policy(recovery=RecoveryPolicy(lost_after_seconds=0.1))
    running = start(policy)
    stage.join("worker-cpu-1")
    stage.submit("lost")
    stage.client.delete("cpu_standard\x06\x164")
    assert running.until(Event.TURN, seconds=30)["resent"] == 1
    assert stage.ids("cpu_standard", 4) == ["lost"]


# -- what goes wrong


def test_an_error_of_one_turn_is_told_once_and_the_next_one_goes_on(stage, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    stage.client.set(stage.keys.workers, "a key of the wrong type")
    assert "WRONGTYPE" in running.until(Event.TURN_FAILED)["error"]
    until(lambda: running.watch._failures >= 3, 15, "no further turn")
    assert len(running.told.of(Event.TURN_FAILED)) == 1
    stage.client.delete(stage.keys.workers)
    assert running.until(Event.TURN_WORKS_AGAIN)["failed_turns"] >= 3


def test_an_error_that_only_turns_meet_is_told_once_however_often_the_loop_looks_between(stage, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    stage.client.set(stage.keys.totals, "a key of the wrong type")
    running.until(Event.TURN_FAILED)
    until(lambda: running.watch._failures >= 3, 25, "no further turn")
    assert len(running.told.of(Event.TURN_FAILED)) == 1
    assert not running.told.of(Event.TURN_WORKS_AGAIN)
    stage.client.delete(stage.keys.totals)
    running.until(Event.TURN_WORKS_AGAIN, seconds=30)


def test_a_server_that_is_read_only_for_a_while_is_told_and_survived(stage, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    try:
        stage.client.replicaof("127.0.0.1", "1")
        assert "read only" in running.until(Event.TURN_FAILED, seconds=30)["error"]
    finally:
        stage.client.replicaof("no", "one")
    running.until(Event.TURN_WORKS_AGAIN, seconds=30)


def test_scripts_that_were_flushed_are_loaded_again(stage, start):
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
    running.until(Event.FLEET)
    turns = running.watch._turns
    stage.client.script_flush()
    until(lambda: running.watch._turns >= turns + 2, 15, "no further turn")
    assert not running.told.of(Event.TURN_FAILED)


def test_a_server_that_goes_away_and_comes_back_is_waited_for():
    with Sandbox() as sandbox:
        server = Server(sandbox, persist=True)
        settings = Settings(redis_url=server.url, policy=Policy(balancing=BalancingPolicy(interval_seconds=1.0)))
        running = Running(RedisBroker(settings))
        running.until(Event.FLEET)
        server.kill()
        assert "cannot reach the broker" in running.until(Event.BROKER_LOST)["error"]
        server.start()
        running.until(Event.BROKER_BACK)
        turns = running.watch._turns
        until(lambda: running.watch._turns > turns, 15, "no turn after it")
        assert len(running.told.of(Event.BROKER_LOST)) == 1
        running.stop()
        running.watch._broker.client.close()


def test_a_leader_that_slept_past_its_lease_stands_by(stage, start):
    """Its clock stood still with it: only the server knows that its time is over."""
    clock = [0.0]
    running = start(Policy(balancing=BalancingPolicy(interval_seconds=1.0)), clock=lambda: clock[0], lease_seconds=1.0)
    running.until(Event.LEADING)
    until(lambda: stage.broker.leases.current() is None, 10, "the lease does not run out")
    stage.broker.leases.take("another", "bob", "watch", 30)
    clock[0] += 1.0
    running.until(Event.LEASE_LOST)
    assert running.until(Event.STANDING_BY)["leader"] == "bob"
    assert stage.broker.leases.current().holder == "another"


def test_once_is_one_turn_and_leaves_no_lease_behind(stage):
    told = Told()
    stage.join("worker-cpu-1")
    stage.submit("a")
    stage.claim("worker-cpu-1")
    report = Watch(stage.broker, who="ann", tell=told).once()
    assert report.trigger == "once"
    assert stage.broker.leases.current() is None
    stage.broker.leases.take("another", "bob", "watch", 30)
    with pytest.raises(LeaseHeld, match="bob leads the fleet"):
        Watch(stage.broker, who="ann", tell=told).once()
