"""PriorityQueueManager on a real broker."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
import redis.asyncio
from celery import Celery

import morag_queue
from morag_queue import IntelligentTaskClassifier, PriorityQueueManager, WorkerRegistry
from morag_queue.core.model import (
    DecisionAction,
    QueuePriority,
    QueueType,
    ResourceRequirement,
)
from morag_queue.core.policy import Binding, Policy
from morag_queue.core.stats import QueueStats
from morag_queue.errors import Refused, SourceError
from morag_queue.local.waiting import until
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import retry
from morag_queue.settings import Settings
from morag_queue.watch.events import Event
from tests.support.simulated_fleet import SimulatedFleet

PAGE = "https://example.org/page.html"
TUBE = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
FILM = "https://example.org/film.mp4"


class RecordedEvents:
    """The events that a manager emits."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, dict[str, Any]]] = []

    def __call__(self, event: Event, /, **fields: Any) -> None:
        self.events.append((event, fields))

    def count(self, event: Event) -> int:
        return sum(emitted is event for emitted, _ in self.events)


class Service:
    """A Celery app, a client, a registry, a classifier, and the manager that uses them."""

    def __init__(self, url: str, *, settings: Settings | None = None, client: Any = None) -> None:
        self.app = Celery("service", broker=url, set_as_current=False)
        self.client = client or redis.Redis.from_url(url)
        self.settings = settings or Settings(redis_url=url)
        self.events = RecordedEvents()
        self.registry = WorkerRegistry(self.client, self.settings)
        self.classifier = IntelligentTaskClassifier(self.registry)
        self.manager = PriorityQueueManager(
            self.app, self.client, self.registry, self.classifier, settings=self.settings, emit=self.events
        )


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture
def service(valkey):
    new_service = Service(valkey)
    yield new_service
    run(new_service.manager.stop())
    new_service.client.close()


@pytest.fixture
def submit(service):
    """Classify and submit one source; return its task id."""

    async def classify_and_submit(source: str, **more: Any) -> str:
        known = {name: more.pop(name) for name in ("requires", "options", "content_type") if name in more}
        classification = await service.classifier.classify_task(source, **known)
        return await service.manager.submit_task(classification, **more)

    return lambda source, **more: run(classify_and_submit(source, **more))


def waiting_message(sim_fleet: SimulatedFleet) -> dict[str, Any]:
    """Return the only message in the lanes."""
    keys = list(sim_fleet.client.scan_iter("[cg]pu_*", _type="list"))
    assert [sim_fleet.client.llen(key) for key in keys] == [1]
    return json.loads(sim_fleet.client.lindex(keys[0], 0))


def lanes(sim_fleet: SimulatedFleet) -> dict[str, int]:
    """Return the length of each lane that is not empty."""
    return {view.lane: view.length for view in sim_fleet.broker.observe()[0].lanes if view.length}


# -- submission and routing


@pytest.mark.parametrize(
    ("source", "more", "queue"),
    [
        (FILM, {}, "gpu_priority"),
        (TUBE, {}, "gpu_fallback"),
        (TUBE, {"priority": QueuePriority.HIGH}, "gpu_priority"),
        (PAGE, {}, "cpu_standard"),
        (PAGE, {"priority": QueuePriority.BATCH}, "cpu_batch"),
    ],
)
def test_a_task_goes_to_the_queue_that_meets_its_requirements(sim_fleet, submit, source, more, queue):
    task_id = submit(source, **more)
    task = next(head for view in sim_fleet.broker.observe()[0].lanes for level in view.heads for head in level)
    assert (task.task_id, task.queue) == (task_id, queue)


def test_the_message_contains_the_arguments_of_the_caller(sim_fleet, submit):
    submit(PAGE, task_args=[PAGE, {"depth": 2}], task_kwargs={"user": "ann"})
    headers = waiting_message(sim_fleet)["headers"]
    assert (headers["argsrepr"], headers["kwargsrepr"]) == (repr((PAGE, {"depth": 2})), repr({"user": "ann"}))


def test_a_task_without_arguments_gets_those_of_its_content_type(sim_fleet, submit):
    submit(TUBE, options={"quality": "low"})
    message = waiting_message(sim_fleet)
    assert message["headers"]["task"] == "morag.worker.process_youtube_video_task"
    assert message["headers"]["argsrepr"] == repr((TUBE, {"quality": "low"}))


def test_the_caller_may_choose_the_task(sim_fleet, submit):
    submit(PAGE, task="other.task", task_args=[1])
    assert waiting_message(sim_fleet)["headers"]["task"] == "other.task"


def test_an_urgent_task_is_claimed_before_earlier_tasks(sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    first = submit(PAGE, priority=QueuePriority.NORMAL)
    urgent = submit(PAGE, priority=QueuePriority.URGENT)
    batch = submit(PAGE, priority=QueuePriority.BATCH)
    assert [sim_fleet.claim("worker-cpu-1") for _ in range(3)] == [urgent, first, batch]


def test_the_priority_follows_from_the_requirements_unless_the_caller_sets_it(service, sim_fleet):
    def priority(source: str, **options: Any) -> QueuePriority:
        return run(service.classifier.classify_task(source, **options)).classification.priority

    assert priority(FILM) is QueuePriority.HIGH
    assert priority(TUBE) is QueuePriority.NORMAL
    assert priority(PAGE, priority="URGENT") is QueuePriority.URGENT


def test_a_task_keeps_the_given_id_and_a_second_task_with_it_is_refused(sim_fleet, submit):
    assert submit(PAGE, task_id="mine") == "mine"
    with pytest.raises(Refused, match="task id mine is still open"):
        submit(PAGE, task_id="mine")
    assert lanes(sim_fleet) == {"cpu_standard": 1}


def test_a_missing_file_is_refused_with_its_name(service, sim_fleet):
    with pytest.raises(SourceError, match=r"nothing-here\.pdf"):
        run(service.classifier.classify_task("/tmp/nothing-here.pdf"))


def test_a_pinned_task_goes_to_the_lane_of_its_worker_or_is_refused(sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    submit(PAGE, worker="worker-cpu-1", task_id="pinned")
    assert lanes(sim_fleet) == {"cpu_standard.worker-cpu-1": 1}
    with pytest.raises(Refused, match="worker-cpu-1"):
        submit(FILM, worker="worker-cpu-1")


# -- decisions and assignment


def classify(service, source: str, **options: Any) -> Any:
    return run(service.classifier.classify_task(source, **options))


def test_a_task_is_held_in_the_shared_lane_if_all_workers_are_full(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1", slots=1)
    submit(PAGE)
    sim_fleet.claim("worker-cpu-1")
    classification = classify(service, PAGE)
    assert (classification.decision.action, classification.lane) == (DecisionAction.HOLD, "cpu_standard")
    assert "full" in classification.decision.reason


def test_a_task_that_requires_a_gpu_waits_for_one(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    classification = classify(service, FILM)
    assert (classification.decision.action, classification.lane) == (DecisionAction.HOLD, "gpu_priority")
    submit(FILM)
    assert sim_fleet.claim("worker-cpu-1") is None


def test_early_binding_assigns_tasks_up_to_the_limit_of_the_queue(valkey, sim_fleet):
    early = Settings(redis_url=valkey, policy=Policy(binding=Binding.EARLY))
    service = Service(valkey, settings=early)
    sim_fleet.join("worker-gpu-1", "gpu", slots=8)

    async def submit_three() -> list[str]:
        classification = await service.classifier.classify_task(FILM)
        return [await service.manager.submit_task(classification) for _ in range(3)]

    run(submit_three())
    assert lanes(sim_fleet) == {"gpu_priority.worker-gpu-1": 2, "gpu_priority": 1}
    service.client.close()


# -- statistics and completion


def test_statistics_of_all_four_queues_are_measured(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1", slots=4)
    ids = [submit(PAGE) for _ in range(4)]
    for _ in range(3):
        sim_fleet.claim("worker-cpu-1")
    sim_fleet.end(ids[0], run_seconds=30.0)
    sim_fleet.end(ids[1], "failed", error="ValueError: no", run_seconds=1.0)
    stats = run(service.manager.get_queue_stats())
    assert set(stats) == set(QueueType)
    cpu = stats[QueueType.CPU_STANDARD]
    assert isinstance(cpu, QueueStats)
    assert (cpu.total_tasks, cpu.pending_tasks, cpu.processing_tasks) == (4, 1, 1)
    assert (cpu.completed_tasks, cpu.failed_tasks, cpu.worker_count) == (1, 1, 1)
    assert cpu.average_processing_time == pytest.approx(0.5, rel=0.2)
    assert cpu.average_wait_time == pytest.approx(1 / 60)
    assert stats[QueueType.GPU_PRIORITY].total_tasks == 0


@pytest.mark.parametrize(("success", "counts"), [(True, (1, 0)), (False, (0, 1))])
def test_a_service_can_complete_a_task_once(service, sim_fleet, submit, success, counts):
    task_id = submit(PAGE)
    assert run(service.manager.task_completed(task_id, success)) is True
    assert run(service.manager.task_completed(task_id, success)) is False
    cpu = run(service.manager.get_queue_stats())[QueueType.CPU_STANDARD]
    assert (cpu.completed_tasks, cpu.failed_tasks) == counts
    assert sim_fleet.broker.records([task_id])[task_id].state == ("completed" if success else "failed")
    assert (cpu.pending_tasks, cpu.total_tasks) == (0, 1)


def test_a_waiting_task_that_was_completed_does_not_run_afterwards(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    first, second = submit(PAGE), submit(PAGE)
    assert run(service.manager.task_completed(first)) is True
    assert sim_fleet.claim("worker-cpu-1") == second


def test_a_waiting_task_that_was_reported_failed_can_be_requeued(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    task_id = submit(PAGE)
    assert run(service.manager.task_completed(task_id, False)) is True
    assert sim_fleet.claim("worker-cpu-1") is None
    (dead,) = sim_fleet.broker.dead.all()
    assert (dead.task_id, dead.reason, dead.source) == (task_id, "reported as failed while it waited", PAGE)
    editor = TaskEditor(sim_fleet.broker, sim_fleet.settings, "dead requeue", who="ann")
    assert retry(editor, [task_id], reset=False).applied.queued == 1
    assert sim_fleet.claim("worker-cpu-1") == task_id


def test_a_task_that_an_agentless_worker_holds_is_completed_without_reading_the_lanes(service, sim_fleet, submit):
    """The worker's message is in `unacked` without an owner record."""
    task_id, other = submit(PAGE), submit(PAGE)
    key = next(iter(sim_fleet.client.scan_iter("cpu_standard*", _type="list")))
    raw = json.loads(sim_fleet.client.rpop(key))
    sim_fleet.client.hset(sim_fleet.keys.unacked, "tag", json.dumps([raw, "", "cpu_standard"]))
    assert run(service.manager.task_completed(task_id)) is True
    assert sim_fleet.broker.records([task_id])[task_id].state == "completed"
    assert sim_fleet.client.hlen(sim_fleet.keys.unacked) == 1  # its worker acknowledges it
    assert sim_fleet.broker.records([other])[other].state == "queued"


def test_a_task_in_the_middle_of_a_long_lane_is_completed(service, sim_fleet, monkeypatch):
    monkeypatch.setattr("morag_queue.operations.task_edits._READ_WHOLE", 1000)
    sim_fleet.fill([f"t-{n}" for n in range(2500)])
    assert run(service.manager.task_completed("t-1000")) is True
    assert sim_fleet.client.llen(sim_fleet.keys.list("cpu_standard", 4)) == 2499
    sim_fleet.client.rpop(sim_fleet.keys.list("cpu_standard", 4))  # an agentless worker took t-0, and acknowledged it
    assert run(service.manager.task_completed("t-0")) is True
    assert sim_fleet.broker.records(["t-0"])["t-0"].state == "completed"


def test_a_task_held_by_a_worker_with_the_agent_is_not_completed_by_the_service(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    task_id = submit(PAGE)
    sim_fleet.claim("worker-cpu-1")
    assert run(service.manager.task_completed(task_id, True)) is False
    sim_fleet.end(task_id)
    assert run(service.manager.get_queue_stats())[QueueType.CPU_STANDARD].completed_tasks == 1


def test_completing_an_unknown_task_is_not_an_error(service, sim_fleet):
    assert run(service.manager.task_completed("no-such-task", True)) is False


# -- what waits and who has it


def test_the_entries_of_the_queues_are_the_waiting_tasks(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.join("worker-gpu-1", "gpu")
    submit(PAGE)
    sim_fleet.claim("worker-cpu-1")
    late, urgent = submit(PAGE), submit(PAGE, priority=QueuePriority.URGENT)
    film = submit(FILM, worker="worker-gpu-1")
    entries = service.manager.queue_entries
    assert {queue: [entry.task_id for entry in waiting] for queue, waiting in entries.items()} == {
        QueueType.GPU_PRIORITY: [film], QueueType.GPU_FALLBACK: [], QueueType.CPU_STANDARD: [urgent, late],
        QueueType.CPU_BATCH: [],
    }  # fmt: skip
    (entry,) = entries[QueueType.GPU_PRIORITY]
    assert isinstance(entry, morag_queue.TaskQueueEntry)
    assert (entry.queue_type, entry.worker_id) == (QueueType.GPU_PRIORITY, "worker-gpu-1")
    assert entry.resource_requirements == (ResourceRequirement.GPU_REQUIRED,)
    assert (entry.retry_count, entry.max_retries) == (0, 3)
    assert abs(entry.submitted_at.timestamp() - sim_fleet.broker.now()) < 60
    assert (entry.source, entry.args[0]) == (FILM, FILM)
    assert entries[QueueType.CPU_STANDARD][0].resource_requirements == (ResourceRequirement.CPU_LIGHT,)
    assert run(service.manager.get_queue_entries()) == entries


def test_an_entry_counts_the_workers_that_died_over_it(service, sim_fleet, submit):
    task_id = submit(PAGE)
    sim_fleet.client.hset(sim_fleet.keys.attempts, task_id, 2)
    (entry,) = service.manager.queue_entries[QueueType.CPU_STANDARD]
    assert (entry.retry_count, entry.worker_id) == (2, None)


def test_the_assignments_of_workers_are_what_they_hold_and_what_is_in_their_lanes(service, sim_fleet, submit):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.join("worker-cpu-2")
    first = submit(PAGE)
    sim_fleet.claim("worker-cpu-1")
    pinned = submit(PAGE, worker="worker-cpu-1")
    submit(PAGE)
    expected = {"worker-cpu-1": [first, pinned], "worker-cpu-2": []}
    assert service.manager.worker_assignments == expected
    assert run(service.manager.get_worker_assignments()) == expected


def test_the_configurations_of_the_queues_are_those_of_the_settings(service):
    configs = service.manager.queue_configs
    assert list(configs) == list(QueueType)
    assert configs[QueueType.CPU_BATCH].max_tasks_per_worker == 8


def test_every_name_of_the_package_can_be_imported():
    assert {"QueueType", "QueuePriority", "TaskQueueEntry", "QueueStats", "LoadBalancingDecision"} <= set(
        morag_queue.__all__
    )
    for name in morag_queue.__all__:
        assert getattr(morag_queue, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        morag_queue.Nothing  # noqa: B018


# -- start and stop


def test_a_started_manager_leads_and_a_stopped_one_releases_the_lease_and_keeps_the_tasks(service, sim_fleet, submit):
    async def lifecycle() -> None:
        await service.manager.start()
        await service.manager.start()
        await asyncio.to_thread(until, lambda: sim_fleet.broker.leases.current(), 10, "no manager leads")
        assert service.manager.is_running
        await service.manager.stop()
        await service.manager.stop()

    task_id = submit(PAGE)
    run(lifecycle())
    assert not service.manager.is_running
    assert sim_fleet.broker.leases.current() is None
    assert sim_fleet.broker.records([task_id])[task_id].state == "queued"
    assert service.events.count(Event.LEADING) == 1


def test_a_second_manager_takes_over_and_both_report_the_same_statistics(valkey, sim_fleet):
    async def both() -> None:
        first, second = Service(valkey), Service(valkey)
        await first.manager.start()
        await asyncio.to_thread(until, lambda: first.events.count(Event.LEADING), 10, "the first does not lead")
        await second.manager.start()
        await asyncio.to_thread(until, lambda: second.events.count(Event.STANDING_BY), 10, "no second on standby")
        classification = await second.classifier.classify_task(PAGE)
        await asyncio.gather(
            *(service.manager.submit_task(classification) for service in (first, second) for _ in range(5))
        )
        counts = [
            (await service.manager.get_queue_stats())[QueueType.CPU_STANDARD].pending_tasks
            for service in (first, second)
        ]
        assert counts == [10, 10]
        await first.manager.stop()
        await asyncio.to_thread(until, lambda: second.events.count(Event.LEADING), 10, "the second does not take over")
        await second.manager.stop()
        first.client.close()
        second.client.close()

    run(both())


def test_an_asyncio_client_that_decodes_responses_is_accepted(valkey, sim_fleet):
    async def with_asyncio() -> int:
        client = redis.asyncio.Redis.from_url(valkey, decode_responses=True)
        service = Service(valkey, client=client)
        async with service.manager:
            await service.manager.submit_task(await service.classifier.classify_task(PAGE))
            stats = await service.manager.get_queue_stats()
        await client.aclose()
        return stats[QueueType.CPU_STANDARD].pending_tasks

    assert run(with_asyncio()) == 1


def test_a_manager_needs_only_an_app_and_a_client(valkey, sim_fleet, monkeypatch):
    monkeypatch.delenv("REDIS_URL", raising=False)
    app = Celery("service", broker=valkey, set_as_current=False)
    app.conf.broker_transport_options = {"sep": "::", "global_keyprefix": "app-7:"}
    with redis.Redis.from_url(valkey) as client:
        manager = PriorityQueueManager(app, client)
        assert manager.settings.redis_url == valkey
        assert (manager.settings.broker.sep, manager.settings.broker.global_keyprefix) == ("::", "app-7:")
        classification = run(manager.task_classifier.classify_task(PAGE))
        run(manager.submit_task(classification))
        assert [key[:20] for key in client.scan_iter("app-7:cpu_*", _type="list")] == [b"app-7:cpu_standard::"]
