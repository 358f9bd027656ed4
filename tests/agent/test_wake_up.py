"""No message waits while a worker that could take it sleeps: the real channel and scripts through random operations."""

import json
import os
from collections.abc import Callable
from uuid import uuid4

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from morag_queue.agent import waiting
from morag_queue.broker.keys import Keys
from morag_queue.broker.workers import Cordons
from morag_queue.core.model import Cordon, WorkerStatus
from tests.support.claiming_worker import ClaimingWorker
from tests.support.fleet import Fleet as SupportFleet
from tests.support.single_messages import soak, start_workers

KEYS = Keys()
SHARED = ["cpu_standard", "cpu_batch"]
NAMES = ["w0", "w1", "w2", "w3", "g0", "g1"]
numbers = st.integers(0, len(NAMES) - 1)


def message(lane: str) -> str:
    """As Celery writes it."""
    return json.dumps(
        {
            "body": "W10=", "content-encoding": "utf-8", "content-type": "application/json",
            "headers": {"id": str(uuid4()), "task": "t"},
            "properties": {
                "delivery_tag": str(uuid4()), "delivery_mode": 2, "body_encoding": "base64", "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": lane},
            },
        }
    )  # fmt: skip


def lanes_of(name: str) -> list[str]:
    """Two kinds of worker: their trackers compete for the lane that both read."""
    shared = SHARED if name.startswith("w") else ["cpu_standard", "gpu_priority"]
    return [*shared, f"cpu_standard.{name}"]


class Fleet(RuleBasedStateMachine):
    """Idle and busy workers of two kinds, and everything that may happen to them between two steps."""

    url = ""

    @initialize(with_faults=st.booleans())
    def begin(self, with_faults: bool) -> None:
        self.with_faults = with_faults
        self.client = redis.Redis.from_url(self.url)
        self.client.flushall()
        self.cordons = Cordons(self.client, KEYS)
        self.workers = {name: self.start(name) for name in NAMES}
        self.stopped: set[str] = set()
        self.cordoned: set[str] = set()
        self.paused = False
        self.must_look_again = False
        self.run_all()

    def start(self, name: str) -> ClaimingWorker:
        return ClaimingWorker(self.url, name, lanes_of(name))

    def name(self, number: int) -> str:
        return list(self.workers)[number % len(self.workers)]

    # -- what happens

    @rule(lane=st.sampled_from([*SHARED, "gpu_priority"]), count=st.integers(1, 4))
    def push(self, lane: str, count: int) -> None:
        self.client.lpush(KEYS.list(lane, 4), *(message(lane) for _ in range(count)))

    @rule(number=numbers)
    def push_to_one(self, number: int) -> None:
        lane = f"cpu_standard.{self.name(number)}"
        self.client.lpush(KEYS.list(lane, 0), message(lane))

    @rule()
    def push_garbage(self) -> None:
        self.client.lpush(KEYS.list("cpu_batch", 4), "not a message")

    @rule(number=numbers, times=st.integers(1, 4))
    def step(self, number: int, times: int) -> None:
        name = self.name(number)
        for _ in range(times):
            if name not in self.stopped:
                self.workers[name].step(0.001)

    @rule(number=numbers)
    def finish(self, number: int) -> None:
        name = self.name(number)
        if self.workers[name].taken and name not in self.stopped:
            self.workers[name].finish()

    @rule(number=numbers)
    def look_again(self, number: int) -> None:
        self.workers[self.name(number)].look_again()

    @rule(number=numbers)
    def cordon(self, number: int) -> None:
        name = self.name(number)
        if name not in self.cordoned:
            self.cordoned.add(name)
            self.cordons.put(name, Cordon(state=WorkerStatus.CORDONED, who="test", at=1), [None])
        else:
            self.cordoned.discard(name)
            self.cordons.put(name, None, [WorkerStatus.CORDONED])

    @precondition(lambda self: self.with_faults)
    @rule()
    def pause_or_resume(self) -> None:
        self.paused = not self.paused
        if self.paused:
            self.client.sadd(KEYS.paused, "cpu_batch")
        else:
            self.client.srem(KEYS.paused, "cpu_batch")
            self.must_look_again = True

    @precondition(lambda self: self.with_faults)
    @rule(number=numbers)
    def stop_or_continue(self, number: int) -> None:
        self.stopped ^= {self.name(number)}
        self.must_look_again = True

    @precondition(lambda self: self.with_faults and len(self.workers) > 1)
    @rule(number=numbers)
    def kill(self, number: int) -> None:
        name = self.name(number)
        self.workers.pop(name).kill()
        self.stopped.discard(name)
        self.must_look_again = True

    # -- what must hold

    @rule(finishes=st.booleans())
    def come_to_rest(self, finishes: bool) -> None:
        """Run all workers until nothing happens any more; then no message waits that a free worker may take."""
        self.run_all(finishes)
        while self.must_look_again and self.look_again_and_run(finishes):
            pass
        assert not self.claimable()
        # A worker that is stopped or dead still stands among those that wait, and may be the next to be woken.
        self.must_look_again = bool(self.stopped) or len(self.workers) < len(NAMES)

    def run_all(self, finishes: bool = True) -> bool:
        """Run until all free workers sleep, and nothing wakes them. Return whether any message was taken."""
        took, quiet_rounds = False, 0
        while quiet_rounds < 2:
            self.client.ping()  # what this client changed has been sent to the workers
            moved = [self.run(worker, finishes) for name, worker in self.workers.items() if name not in self.stopped]
            took |= any(moved)
            quiet_rounds = 0 if any(moved) else quiet_rounds + 1
        return took

    def run(self, worker: ClaimingWorker, finishes: bool) -> bool:
        """Run one worker until it sleeps or is busy. Return whether it took a message."""
        took = worker.step(0.001)
        while (worker.taken and finishes) or (worker.is_free and not worker.waits):
            while worker.taken and finishes:
                worker.finish()
            took |= worker.step(0.001)
        return took

    def look_again_and_run(self, finishes: bool) -> bool:
        for worker in self.workers.values():
            worker.look_again()
        return self.run_all(finishes)

    def claimable(self) -> dict[str, int]:
        """Messages by lane that a running, free worker may take."""
        open_lanes = set()
        for name in {name for name, worker in self.workers.items() if worker.is_free} - self.stopped:
            lanes = lanes_of(name)
            open_lanes |= {lanes[-1]} if name in self.cordoned else set(lanes)
        if self.paused:
            open_lanes.discard("cpu_batch")
        found = {}
        for lane in open_lanes:
            texts = [text for level in (0, 4) for text in self.client.lrange(KEYS.list(lane, level), 0, -1)]
            if count := len([text for text in texts if text != b"not a message"]):
                found[lane] = count
        return found

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            try:
                self.come_to_rest(finishes=True)
            finally:
                for worker in self.workers.values():
                    worker.kill()
                self.client.close()


def test_no_message_waits_while_a_worker_that_may_take_it_sleeps(valkey: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look again only where the machine says so: a lost wake-up is not repaired by the clock."""
    monkeypatch.setattr(waiting, "TRACKER_SECONDS", 1000.0)
    monkeypatch.setattr(waiting, "WAITER_SECONDS", 1000.0)
    machine = type("ThisFleet", (Fleet,), {"url": valkey})
    examples = int(os.environ.get("EXAMPLES", "25"))
    # Not shrunk: that would take minutes.
    phases = (Phase.reuse, Phase.generate)
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40, phases=phases))


def test_no_single_message_is_left_lying_by_idle_workers(make_fleet: Callable[..., SupportFleet]) -> None:
    fleet = make_fleet(agent=False)
    start_workers(fleet, 8, processes=2)

    assert soak(fleet, 600, seed=7).left == 0
