"""Load balancing on a real broker, turn by turn: shares, moves and their reasons, and coming to rest."""

from collections import Counter
from typing import Any

import pytest

from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.model import QueueType
from morag_queue.core.policy import BalancingPolicy, Policy
from morag_queue.watch.turn import PollEvidence, TurnReport, step
from tests.support.simulated_fleet import SimulatedFleet

TUBE = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
AUDIO = {"source": TUBE, "content_type": "youtube", "requires": "gpu_preferred", "estimated_duration": 10.0}
AT_ONCE = Policy(balancing=BalancingPolicy(settle_seconds=0.0, rest_seconds=0.0, return_ticks=0))


class Balanced:
    """A fleet and its turns; the state of one turn is passed to the next."""

    def __init__(self, url: str, policy: Policy | None = None) -> None:
        self.sim_fleet = SimulatedFleet(url, **({"policy": policy} if policy else {}))
        self.state = BalancerState()

    def turn(self, **evidence: Any) -> TurnReport:
        done = step(
            self.sim_fleet.broker, self.state, PollEvidence(**evidence), term="", who="test", pause=lambda _: None
        )
        self.state = done.state
        return done.report

    def waiting(self) -> dict[str, int]:
        return {view.lane: view.length for view in self.sim_fleet.broker.observe()[0].lanes if view.length}

    def pull(self, *workers: str, rounds: int = 1) -> Counter[str]:
        """Let each worker take and end one task per round. Return how many tasks each got."""
        got: Counter[str] = Counter()
        for _ in range(rounds):
            for name in workers:
                if (task := self.sim_fleet.claim(name)) is not None:
                    self.sim_fleet.end(task)
                    got[name] += 1
        return got


@pytest.fixture
def balanced(valkey):
    made = Balanced(valkey)
    yield made
    made.sim_fleet.client.close()


@pytest.fixture
def at_once(valkey):
    """Balancing without the pauses in which the workers of a real fleet claim tasks."""
    made = Balanced(valkey, AT_ONCE)
    yield made
    made.sim_fleet.client.close()


def ids(count: int, name: str = "t") -> list[str]:
    return [f"{name}-{n:03d}" for n in range(count)]


# -- shares


def test_equal_workers_get_equal_shares(balanced):
    workers = [f"worker-cpu-{n}" for n in range(1, 4)]
    for name in workers:
        balanced.sim_fleet.join(name)
    balanced.sim_fleet.submit(*ids(30))
    balanced.turn()
    assert balanced.pull(*workers, rounds=10) == dict.fromkeys(workers, 10)


def test_a_worker_that_joins_late_gets_work_without_a_move(balanced):
    balanced.sim_fleet.join("worker-cpu-1")
    balanced.sim_fleet.submit(*ids(20))
    balanced.pull("worker-cpu-1", rounds=5)
    balanced.sim_fleet.join("worker-cpu-2")
    assert not balanced.turn().has_changed
    assert balanced.pull("worker-cpu-1", "worker-cpu-2", rounds=5) == {"worker-cpu-1": 5, "worker-cpu-2": 5}


def test_twenty_turns_leave_a_balanced_fleet_alone(balanced):
    balanced.sim_fleet.join("worker-gpu-1", "gpu")
    balanced.sim_fleet.join("worker-cpu-1")
    balanced.sim_fleet.submit(*ids(10))
    before = balanced.waiting()
    assert not any(balanced.turn().has_changed for _ in range(20))
    assert balanced.waiting() == before


# -- redistribution


def test_work_of_a_draining_worker_moves_to_the_shared_lane_in_order(balanced):
    balanced.sim_fleet.join("worker-cpu-1")
    balanced.sim_fleet.join("worker-cpu-2")
    balanced.sim_fleet.submit(*ids(5), worker="worker-cpu-1")
    balanced.sim_fleet.client.hset(balanced.sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    report = balanced.turn()
    assert (report.moved, report.rules) == (5, {"evacuation": 5})
    assert balanced.sim_fleet.ids("cpu_standard", 4) == ids(5)
    assert balanced.pull("worker-cpu-1", "worker-cpu-2", rounds=5) == {"worker-cpu-2": 5}


def test_work_that_prefers_a_gpu_spills_to_idle_cpus_when_the_gpus_are_overloaded(at_once):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(40), **AUDIO)
    report = at_once.turn()
    assert report.rules.get("spill", 0) > 0
    assert at_once.waiting()["cpu_standard"] == report.rules["spill"]
    assert at_once.pull("worker-cpu-1", rounds=2)["worker-cpu-1"] == 2


def test_the_newest_tasks_spill_because_they_would_wait_longest(at_once):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(40), **AUDIO)
    at_once.turn()
    spilled = [one for level in range(10) for one in at_once.sim_fleet.ids("cpu_standard", level)]
    assert set(spilled) == set(ids(40)[-len(spilled) :])


def test_work_that_requires_a_gpu_never_spills_under_any_load(at_once):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=50)
    at_once.sim_fleet.submit(*ids(200), source=TUBE, content_type="video", requires="gpu", estimated_duration=30.0)
    for _ in range(10):
        at_once.turn()
    assert at_once.waiting() == {"gpu_priority": 200}
    assert at_once.pull("worker-cpu-1", rounds=3) == {}


def test_nothing_spills_while_cpu_work_waits(at_once):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(40), **AUDIO)
    at_once.sim_fleet.submit("cpu-work")
    assert "spill" not in at_once.turn().rules


def test_spilled_work_that_still_waits_returns_when_the_gpus_are_free(at_once):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(40), **AUDIO)
    spilled = at_once.turn().rules["spill"]
    at_once.pull("worker-gpu-1", rounds=40)
    at_once.sim_fleet.client.hset(at_once.sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "cordoned"}')
    returned = at_once.turn().rules.get("return", 0)
    assert 0 < returned <= spilled
    assert at_once.waiting().get("gpu_fallback", 0) == returned


def test_no_task_is_moved_more_than_twice_when_idle_workers_alternate(at_once):
    """Idle CPUs and free GPUs alternate forty times; a rule that could ping-pong would do so here."""
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(30), **AUDIO)
    moves = 0
    for n in range(40):
        busy = n % 2
        gone = "worker-cpu-1" if busy else "worker-gpu-1"
        at_once.sim_fleet.client.delete(at_once.sim_fleet.keys.cordons)
        at_once.sim_fleet.client.hset(at_once.sim_fleet.keys.cordons, gone, '{"state": "cordoned"}')
        moves += at_once.turn().moved
    assert moves <= 2 * 30
    assert sum(at_once.waiting().values()) == 30


def test_a_turn_stays_within_its_budget(valkey):
    few = Policy(balancing=BalancingPolicy(moves_min=3, settle_seconds=0.0))
    made = Balanced(valkey, few)
    made.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    made.sim_fleet.join("worker-cpu-1", slots=50)
    made.sim_fleet.submit(*ids(100), **AUDIO)
    assert made.turn().moved == 3
    assert made.turn().moved == 0  # of the same tick
    made.sim_fleet.client.close()


def test_a_starving_task_is_promoted_and_the_journal_gives_the_reason(balanced):
    balanced.sim_fleet.join("worker-cpu-1")
    balanced.sim_fleet.submit("old", priority="BATCH")
    text = balanced.sim_fleet.client.rpop("cpu_batch\x06\x168")
    long_ago = balanced.sim_fleet.broker.now() - 5 * 3600
    header = text.decode().partition('"enqueued_at": ')
    at, comma, rest = header[2].partition(",")
    assert float(at)
    balanced.sim_fleet.client.rpush("cpu_batch\x06\x168", f"{header[0]}{header[1]}{long_ago:.3f}{comma}{rest}")
    report = balanced.turn()
    assert report.rules == {"starvation guard": 1}
    assert balanced.sim_fleet.ids("cpu_batch", 1) == ["old"]
    (entry,) = balanced.sim_fleet.broker.journal.latest(1)
    assert "it has waited 300 min" in entry.changes["tasks"]["old"][4]


def test_nothing_is_moved_from_a_paused_queue(at_once):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(40), **AUDIO)
    at_once.sim_fleet.client.sadd(at_once.sim_fleet.keys.paused, QueueType.GPU_FALLBACK.value)
    assert not at_once.turn().has_changed


def test_a_task_claimed_between_plan_and_move_is_rejected_alone(at_once, monkeypatch):
    at_once.sim_fleet.join("worker-gpu-1", "gpu", slots=1)
    at_once.sim_fleet.join("worker-cpu-1", slots=8)
    at_once.sim_fleet.submit(*ids(40), **AUDIO)
    moves = at_once.sim_fleet.broker.moves
    real = moves.tasks

    def meanwhile(steps, *args, **more):
        stolen = steps[0]
        key = at_once.sim_fleet.keys.list(stolen.source, stolen.level)
        texts = at_once.sim_fleet.client.lrange(key, 0, -1)
        text = next(one for one in texts if stolen.task_id.encode() in one)
        at_once.sim_fleet.client.lrem(key, 1, text)
        return real(steps, *args, **more)

    monkeypatch.setattr(moves, "tasks", meanwhile)
    report = at_once.turn()
    assert len(report.rejected) == 1
    assert "no longer in gpu_fallback" in report.rejected[0].reason
    assert report.moved == report.rules["spill"] > 0
