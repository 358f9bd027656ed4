"""Operations take the broker contract: they work in memory as they do on Redis."""

from morag_queue.core.model import QueueType, Requires
from morag_queue.core.plan import Plan
from morag_queue.operations.journal import entry, latest
from morag_queue.operations.rebalance import run_once, run_plan
from morag_queue.operations.stats import stats
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row
from morag_queue.settings import Settings
from tests.support.broker_drivers import MemoryDriver


def test_a_task_is_submitted_balanced_and_completed_in_memory():
    driver, configured = MemoryDriver(), Settings()
    driver.join("cpu-1", slots=2)
    driver.join("gone")
    rows = [
        (0, Row(source="https://example.org/a.html", task_id="a")),
        (0, Row(source="https://example.org/b.html", task_id="b", worker="gone")),
    ]
    report = Submitter(driver.broker, configured).submit(rows)
    assert (report.submitted, report.failed) == (2, [])

    driver.broker.beat("gone", stopped=True)
    done = run_once(driver.broker, configured, who="ann@here", reason="test")
    assert (done.moved_tasks, done.rejected) == (1, ())
    assert sorted(task_id for ids in driver.places().values() for task_id in ids) == ["a", "b"]
    (change,) = latest(driver.broker, 10)
    assert entry(driver.broker, change.plan_id) == change

    assert {driver.claim("cpu-1"), driver.claim("cpu-1")} == {"a", "b"}
    driver.end("a", run_seconds=60)
    driver.end("b", run_seconds=60)
    standard = next(row for row in stats(driver.broker, configured).queues if row.queue_type is QueueType.CPU_STANDARD)
    assert (standard.pending_tasks, standard.completed_tasks, standard.average_processing_time) == (0, 2, 1.0)


def test_a_plan_of_an_older_version_follows_the_gpu_safety_rule_of_the_present_fleet():
    driver = MemoryDriver()
    driver.join("gpu-1", "gpu")
    driver.submit("film", "clip", lane="gpu_priority", requires=Requires.GPU)
    step = {"kind": "move_task", "source": "gpu_priority", "level": 4, "to_level": 4, "reason": "by hand"}
    steps = [step | {"task_id": "film", "target": "gpu_fallback"}, step | {"task_id": "clip", "target": "cpu_standard"}]
    plan = Plan.model_validate({"plan_id": "p", "verb": "rebalance", "fleet": "", "taken_at": 0.0, "steps": steps})
    done = run_plan(driver.broker, Settings(), plan, who="ann")
    assert (done.moved_tasks, [rejected.task_id for rejected in done.rejected]) == (1, ["clip"])
    assert driver.places() == {("gpu_fallback", 4): ["film"], ("gpu_priority", 4): ["clip"]}
