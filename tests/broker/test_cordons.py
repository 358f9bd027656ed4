"""Cordons as claims and heartbeats see them, and the circuit breaker that writes them."""

import json

import pytest

from morag_queue.broker.codec import LedgerRecord
from morag_queue.broker.ledger import Ledger, TaskEnd
from morag_queue.broker.workers import Cordons, Registry
from morag_queue.core.failure import Blame, RecoveryPolicy
from morag_queue.core.model import Capability, Cordon, WorkerInfo, WorkerStatus
from tests.broker.conftest import SHARED, ScriptRunner

CORDONED, DRAINING, DRAINED = WorkerStatus.CORDONED, WorkerStatus.DRAINING, WorkerStatus.DRAINED


@pytest.fixture
def cordons(runner: ScriptRunner) -> Cordons:
    return Cordons(runner.client, runner.keys)


@pytest.fixture
def registry(runner: ScriptRunner) -> Registry:
    registry = Registry(runner.client, runner.keys, 60)
    registry.register(
        WorkerInfo(
            worker="w1", incarnation="run-1", host="h", pid=1, slots=1, capability=Capability.CPU,
            queues=("cpu_standard",),
        )
    )  # fmt: skip
    return registry


def test_only_one_of_two_concurrent_drains_begins(cordons: Cordons):
    first, second = (Cordon(state=DRAINING, who=who) for who in ("ann", "bob"))
    assert cordons.put("w1", first, (None, CORDONED))
    assert not cordons.put("w1", second, (None, CORDONED))
    assert cordons.get("w1") == first


def test_a_lifted_drain_does_not_become_drained(cordons: Cordons):
    cordons.put("w1", Cordon(state=DRAINING), (None,))
    assert cordons.put("w1", None, (DRAINING,))
    assert not cordons.put("w1", Cordon(state=DRAINED), (DRAINING,))
    assert cordons.get("w1") is None


def test_a_cordoned_worker_claims_from_its_own_lanes_and_a_drained_one_nothing(runner: ScriptRunner, cordons: Cordons):
    runner.send(lane="cpu_standard")
    runner.send(lane="cpu_standard.w1")
    cordons.put("w1", Cordon(state=CORDONED), (None,))
    assert runner.claim().lane == "cpu_standard.w1"
    assert runner.claim() is None
    for state in (DRAINING, DRAINED):
        runner.send(lane="cpu_standard.w1")
        cordons.put("w1", Cordon(state=state), (CORDONED, DRAINING))
        assert runner.claim() is None
    assert runner.claim(worker="w2") is not None, "another worker is not cordoned"


def test_an_expired_cordon_has_no_effect(runner: ScriptRunner, cordons: Cordons):
    runner.send()
    now = runner.client.time()[0]
    cordons.put("w1", Cordon(state=CORDONED, until=now + 100.0), (None,))
    assert runner.claim() is None
    assert not cordons.put("w1", Cordon(state=DRAINING), (None,))
    cordons.put("w1", Cordon(state=CORDONED, until=now - 1.0), (CORDONED,))
    assert runner.claim() is not None
    assert cordons.put("w1", Cordon(state=DRAINING), (None,)), "an expired cordon counts as none"


def test_a_heartbeat_is_answered_with_draining_during_a_drain(registry: Registry, cordons: Cordons):
    assert registry.beat("w1", "run-1", {}, []) == "ok"
    cordons.put("w1", Cordon(state=CORDONED), (None,))
    assert registry.beat("w1", "run-1", {}, []) == "ok"
    for state in (DRAINING, DRAINED):
        cordons.put("w1", Cordon(state=state), (CORDONED, DRAINING))
        assert registry.beat("w1", "run-1", {}, []) == "draining"
    cordons.put("w1", None, (DRAINED,))
    assert registry.beat("w1", "run-1", {}, []) == "ok"


# -- the circuit breaker


class Ender:
    """Ends one task after another on workers."""

    def __init__(self, runner: ScriptRunner) -> None:
        self.runner, self.ledger = runner, Ledger(runner.client, runner.keys, 60, RecoveryPolicy(breaker_failures=3))

    def ends(self, worker: str, outcome: str, blame: Blame = Blame.UNCLEAR) -> None:
        self.runner.send()
        taken = self.runner.claim(worker=worker, lanes=(SHARED,))
        if taken is None:  # it is cordoned: a task that it took before
            taken = self.runner.claim(worker="other", lanes=(SHARED,))
        assert self.ledger.settle(
            TaskEnd(
                taken.tag, taken.task_id, worker, "cpu_standard", outcome, 1, 1, LedgerRecord({"state": outcome}), blame
            )
        )


@pytest.fixture
def ender(runner: ScriptRunner) -> Ender:
    return Ender(runner)


def test_a_worker_that_fails_while_others_succeed_is_cordoned_for_a_while(ender: Ender, cordons: Cordons):
    for _ in range(2):
        ender.ends("w1", "failed")
        ender.ends("w2", "completed")
    assert cordons.get("w1") is None
    ender.ends("w1", "failed")
    opened = cordons.get("w1")
    assert (opened.state, opened.who, opened.reason) == (CORDONED, "circuit breaker", "3 failures in a row")
    assert opened.until - opened.at == 300
    [(_, entry)] = ender.runner.client.xrange(ender.runner.keys.journal)
    assert json.loads(entry[b"entry"])["subject"] == "w1"


def test_a_batch_of_broken_files_cordons_no_worker(ender: Ender, cordons: Cordons):
    for _ in range(10):
        ender.ends("w1", "failed")
        ender.ends("w2", "failed")
    assert (cordons.get("w1"), cordons.get("w2")) == (None, None)


def test_a_full_disk_opens_the_breaker_alone_and_a_lost_network_never_does(ender: Ender, cordons: Cordons):
    for _ in range(3):
        ender.ends("w1", "failed", Blame.WORKER)
        ender.ends("w2", "failed", Blame.NONE)
    assert cordons.get("w1") is not None
    assert cordons.get("w2") is None


def test_a_success_resets_the_failure_count(ender: Ender, cordons: Cordons):
    for outcome in ("failed", "failed", "completed", "failed", "failed"):
        ender.ends("w1", outcome)
        ender.ends("w2", "completed")
    assert cordons.get("w1") is None
    assert ender.runner.client.hget(ender.runner.keys.totals, "streak|w1") == b"2"


def test_the_first_failure_after_the_breaker_closed_opens_it_again(ender: Ender, cordons: Cordons):
    for _ in range(3):
        ender.ends("w1", "failed", Blame.WORKER)
    cordons.put("w1", cordons.get("w1").model_copy(update={"until": 1.0}), (CORDONED,))
    ender.ends("w1", "failed", Blame.WORKER)
    assert cordons.get("w1").until > 1.0


def test_the_breaker_never_overwrites_a_cordon_of_a_person(ender: Ender, cordons: Cordons):
    placed = Cordon(state=CORDONED, who="ann")
    cordons.put("w1", placed, (None,))
    for _ in range(4):
        ender.ends("w1", "failed", Blame.WORKER)
    assert cordons.get("w1") == placed
