"""Corrections: summed up as tasks end, folded in by the leader, and used for routing."""

from math import exp, log

import pytest

from morag_queue.broker.codec import LedgerRecord, read_corrections
from morag_queue.broker.counters import CorrectionStore
from morag_queue.broker.ledger import TaskEnd
from morag_queue.core.estimate import Correction, learn, learn_many
from morag_queue.core.model import ContentType, Requires
from morag_queue.core.routing.router import route
from morag_queue.core.routing.types import TaskProfile
from morag_queue.errors import LeaseLost

AUDIO = {"source": "https://example.org/talk.mp3", "content_type": "audio", "requires": "gpu_preferred"}
ON_GPU = (ContentType.AUDIO, Requires.GPU_PREFERRED, True)
ON_CPU = (ContentType.AUDIO, Requires.GPU_PREFERRED, False)


@pytest.fixture
def learning(sim_fleet):
    return CorrectionStore(sim_fleet.client, sim_fleet.keys)


def run(sim_fleet, worker, task_id, run_seconds, outcome="completed", **fields):
    """Runs one task with an estimate of ten minutes on that worker; it takes `run_seconds`."""
    sim_fleet.submit(task_id, **{**AUDIO, "estimated_duration": 10.0, **fields})
    assert sim_fleet.claim(worker) == task_id
    sim_fleet.end(task_id, outcome, run_seconds=run_seconds)


def learned(sim_fleet):
    return dict(sim_fleet.broker.observe()[0].corrections)


def test_a_run_as_long_as_predicted_changes_no_correction(sim_fleet, learning):
    sim_fleet.join("worker-gpu-1", "gpu")
    run(sim_fleet, "worker-gpu-1", "a", run_seconds=120.0)
    assert learning.fold() == (1, 1)
    assert learned(sim_fleet)[ON_GPU].m == pytest.approx(0.0, abs=1e-6)


def test_cpu_and_gpu_workers_have_corrections_of_their_own(sim_fleet, learning):
    sim_fleet.join("worker-gpu-1", "gpu")
    run(sim_fleet, "worker-gpu-1", "a", run_seconds=240.0)
    sim_fleet.join("worker-cpu-1", "cpu", queues=("gpu_fallback",))
    sim_fleet.client.hdel(sim_fleet.keys.workers, "worker-gpu-1")
    run(sim_fleet, "worker-cpu-1", "b", run_seconds=600.0)
    assert learning.fold() == (2, 2)
    found = learned(sim_fleet)
    assert found[ON_GPU].m == pytest.approx(log(2) / 5, abs=1e-5)
    assert found[ON_CPU].m == pytest.approx(log(0.5) / 5, abs=1e-5)


def test_failed_runs_and_tasks_without_our_header_are_ignored(sim_fleet, learning):
    sim_fleet.join("worker-gpu-1", "gpu")
    run(sim_fleet, "worker-gpu-1", "a", run_seconds=999.0, outcome="failed")
    sim_fleet.send("plain", lane="gpu_priority")
    sim_fleet.claim("worker-gpu-1")
    sim_fleet.end("plain", run_seconds=1.0)
    assert learning.fold() == (0, 0)
    assert learned(sim_fleet) == {}


@pytest.mark.parametrize("which", ["surprises", "workers"])
def test_a_task_ends_where_nothing_can_be_learned(sim_fleet, which):
    sim_fleet.join("worker-gpu-1", "gpu")
    sim_fleet.submit("a", **AUDIO)
    sim_fleet.claim("worker-gpu-1")
    held = sim_fleet.broker.observe()[0].held
    sim_fleet.client.delete(getattr(sim_fleet.keys, which))
    sim_fleet.client.set(getattr(sim_fleet.keys, which), "of another type")
    record = LedgerRecord({**AUDIO, "state": "completed", "estimated_minutes": 1.0})
    end = TaskEnd(held[0].tag, "a", "worker-gpu-1", "gpu_priority", "completed", 1.0, 2.0, record)
    assert sim_fleet.broker.ledger.settle(end) is True
    assert sim_fleet.broker.records(["a"])["a"].state == "completed"


def test_an_outlier_counts_as_a_factor_of_twenty_at_most(sim_fleet, learning):
    sim_fleet.join("worker-gpu-1", "gpu")
    run(sim_fleet, "worker-gpu-1", "a", run_seconds=1e9)
    learning.fold()
    assert learned(sim_fleet)[ON_GPU].m == pytest.approx(3 / 5)


def test_each_run_is_learned_from_once_and_later_runs_are_added(sim_fleet, learning):
    sim_fleet.join("worker-gpu-1", "gpu")
    run(sim_fleet, "worker-gpu-1", "a", run_seconds=240.0)
    assert learning.fold() == (1, 1)
    assert learning.fold() == (0, 0)
    run(sim_fleet, "worker-gpu-1", "b", run_seconds=240.0)
    assert learning.fold() == (1, 1)
    assert learned(sim_fleet)[ON_GPU].n == 2
    assert learned(sim_fleet)[ON_GPU].m == pytest.approx(
        learn_many(Correction(n=1, m=log(2) / 5), 1, log(2)).m, abs=1e-5
    )
    assert sim_fleet.client.hgetall(sim_fleet.keys.surprises) == {}


def test_a_superseded_leader_folds_nothing(sim_fleet, learning):
    sim_fleet.join("worker-gpu-1", "gpu")
    run(sim_fleet, "worker-gpu-1", "a", run_seconds=240.0)
    lease = sim_fleet.broker.leases.take("another", "ann", "watch", 30)
    with pytest.raises(LeaseLost):
        learning.fold(term=str(lease.term + 1))
    assert learned(sim_fleet) == {}
    assert learning.fold(term=str(lease.term)) == (1, 1)


def test_routing_uses_the_corrections(sim_fleet, learning):
    """Audio runs three times as long as predicted on this fleet's GPU."""
    sim_fleet.join("worker-gpu-1", "gpu")
    work = TaskProfile(Requires.GPU_PREFERRED, content_type=ContentType.AUDIO, estimated_minutes=10.0)

    def expected() -> float:
        snapshot = sim_fleet.broker.observe()[0]
        return route(work, snapshot, sim_fleet.settings.policy, sim_fleet.settings.queues).scores[0].expected_minutes

    assert expected() == pytest.approx(2.0)
    for n in range(40):
        run(sim_fleet, "worker-gpu-1", f"a{n}", run_seconds=360.0)
    learning.fold()
    assert expected() == pytest.approx(6.0, rel=0.15)


def test_many_equal_errors_at_once_teach_the_same_as_one_by_one():
    one_by_one = Correction()
    for _ in range(300):
        one_by_one = learn(one_by_one, exp(0.7), 1.0)
    at_once = learn_many(Correction(), 300, 300 * 0.7)
    assert (at_once.n, at_once.m) == (300, pytest.approx(one_by_one.m))
    assert learn_many(Correction(), 10**9, 0.7e9).m == pytest.approx(0.7, abs=1e-3)
    assert learn_many(at_once, 0, 0.0) == at_once


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"audio|gpu|1": 3}', '{"tape|gpu|1": [1, 0.5]}'])
def test_unreadable_corrections_count_as_none(text):
    assert read_corrections(text) == {}
