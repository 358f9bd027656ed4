"""Verbs take the port: on a broker in memory they do what they do on a real one."""

from morag_queue.core.model import QueueType
from morag_queue.operations.journal import entry, latest
from morag_queue.operations.rebalance import run_once
from morag_queue.operations.stats import stats
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row
from morag_queue.settings import Settings
from tests.support.broker_drivers import MemoryDriver


def test_a_task_goes_all_the_way_in_memory():
    rig, configured = MemoryDriver(), Settings()
    rig.join("cpu-1", slots=2)
    rig.join("gone")
    rows = [
        (0, Row(source="https://example.org/a.html", task_id="a")),
        (0, Row(source="https://example.org/b.html", task_id="b", worker="gone")),
    ]
    report = Submitter(rig.broker, configured).submit(rows)
    assert (report.submitted, report.failed) == (2, [])

    rig.broker.beat("gone", stopped=True)
    done = run_once(rig.broker, configured, who="ann@here", reason="test")
    assert (done.moved_tasks, done.rejected) == (1, ())
    assert sorted(one for ids in rig.places().values() for one in ids) == ["a", "b"]
    (change,) = latest(rig.broker, 10)
    assert entry(rig.broker, change.plan_id) == change

    assert {rig.claim("cpu-1"), rig.claim("cpu-1")} == {"a", "b"}
    rig.end("a", run_seconds=60)
    rig.end("b", run_seconds=60)
    standard = next(one for one in stats(rig.broker, configured).queues if one.queue_type is QueueType.CPU_STANDARD)
    assert (standard.pending_tasks, standard.completed_tasks, standard.average_processing_time) == (0, 2, 1.0)
