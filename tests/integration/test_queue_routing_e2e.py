"""The whole system: a manager, a broker, and real workers of three types that join, leave and die."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from morag_queue import IntelligentTaskClassifier, PriorityQueueManager, WorkerRegistry
from morag_queue.core.model import QueuePriority, QueueType, WorkerStatus
from morag_queue.core.policy import BalancingPolicy, Policy
from morag_queue.local.waiting import until
from morag_queue.settings import Settings
from morag_queue.watch.events import Event
from tests.support.fleet import Fleet


class System:
    """A fleet and the service that uses it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.events = fleet, list[tuple[Event, dict[str, Any]]]()
        self.client = redis.Redis.from_url(fleet.url)
        # On a slow machine GPU-preferred work would wait long enough to move to the idle CPU worker.
        never_spill = Policy(balancing=BalancingPolicy(spill_idle_share=1.0))
        settings = Settings(redis_url=fleet.url, policy=never_spill)
        app = Celery("service", broker=fleet.url, backend=fleet.url, set_as_current=False)
        self.registry = WorkerRegistry(self.client, settings)
        self.classifier = IntelligentTaskClassifier(self.registry)
        self.manager = PriorityQueueManager(
            app, self.client, self.registry, self.classifier, settings=settings,
            emit=lambda event, /, **fields: self.events.append((event, fields)),
        )  # fmt: skip
        self.report = fleet.dir / "report.txt"
        self.report.write_text("A report of three pages.\n" * 400)
        self.sent: list[str] = []

    async def submit(self, content_type: str = "document", *, sleep: float = 0.05, **options: Any) -> str:
        """Submit a file of this type; its task records its worker and sleeps."""
        known = {name: options.pop(name) for name in ("priority", "requires") if name in options}
        classification = await self.classifier.classify_task(str(self.report), content_type, **known)
        args = [str(self.report), content_type, {"sleep": sleep}]
        self.sent.append(await self.manager.submit_task(classification, args, {}, **options))
        return self.sent[-1]

    def ran_on(self, task_id: str) -> str:
        return next(event["worker"].partition("@")[0] for event in self.fleet.events("end") if event["task"] == task_id)

    def failed_over(self) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event is Event.FAILED_OVER]

    def check_no_task_is_lost(self, may_run_twice: set[str] = frozenset()) -> None:
        self.fleet.until_ran(self.sent, 60)
        until(lambda: not self.fleet.account(self.sent).stuck, 30, lambda: f"stuck: {self.fleet.where()}")
        account = self.fleet.account(self.sent)
        assert not account.lost
        assert account.duplicated <= set(may_run_twice)


@pytest.fixture
def run_system(make_fleet: Callable[..., Fleet]) -> Callable[..., None]:
    """Run a scenario with these workers and a manager."""

    def run(workers: dict[str, str], scenario: Callable[[System], Coroutine[Any, Any, None]]) -> None:
        fleet = make_fleet()
        for name, kind in workers.items():
            fleet.start_worker(name, kind, wait=False)
        fleet.wait_for(*workers)
        system = System(fleet)

        async def run_scenario() -> None:
            async with system.manager:
                await scenario(system)

        asyncio.run(run_scenario())
        system.client.close()

    return run


MIXED = {"worker-gpu-1": "gpu", "worker-hybrid-1": "hybrid", "worker-cpu-1": "cpu"}


def test_each_task_runs_on_a_suitable_worker_and_is_counted(run_system):
    async def workflow(system: System) -> None:
        films = [await system.submit("video") for _ in range(6)]
        songs = [await system.submit("audio") for _ in range(6)]
        pages = [await system.submit("document") for _ in range(6)]
        batch = [await system.submit("document", priority="BATCH") for _ in range(3)]
        await asyncio.to_thread(system.check_no_task_is_lost)
        assert {system.ran_on(task) for task in films + songs} <= {"worker-gpu-1", "worker-hybrid-1"}
        assert {system.ran_on(task) for task in pages + batch} <= {"worker-cpu-1", "worker-hybrid-1"}

        async def counted() -> dict[QueueType, int]:
            return {queue: stats.completed_tasks for queue, stats in (await system.manager.get_queue_stats()).items()}

        expected = {"gpu_priority": 6, "gpu_fallback": 6, "cpu_standard": 6, "cpu_batch": 3}
        for _ in range(100):
            if await counted() == expected:
                break
            await asyncio.sleep(0.1)  # the last acknowledgement may be pending
        assert await counted() == expected
        cpu = (await system.manager.get_queue_stats())[QueueType.CPU_STANDARD]
        assert cpu.average_processing_time > 0
        assert cpu.p95_wait_time > 0

    run_system(MIXED, workflow)


def test_an_urgent_task_overtakes_the_backlog(run_system):
    async def urgent(system: System) -> None:
        backlog = [await system.submit("document", sleep=0.2, priority="BATCH") for _ in range(20)]
        backlog += [await system.submit("document", sleep=0.2) for _ in range(20)]
        await asyncio.to_thread(until, lambda: len(system.fleet.counts("start")) >= 3, 20, "nothing runs")
        first = await system.submit("document", priority=QueuePriority.URGENT.name)
        submitted_at = time.time()
        await asyncio.to_thread(system.check_no_task_is_lost)
        starts = system.fleet.events("start")
        order = [start["task"] for start in starts]
        before = [start for start in starts[: order.index(first)] if start["at"] > submitted_at]
        # Only tasks that the workers had already reserved may start before it.
        assert len(before) <= 4, f"{len(before)} of {len(backlog)} tasks started between its submission and its start"

    run_system({"worker-cpu-1": "cpu", "worker-cpu-2": "cpu"}, urgent)


def test_tasks_of_a_killed_worker_run_elsewhere_and_only_running_ones_run_twice(run_system):
    async def killed(system: System) -> None:
        for _ in range(12):
            await system.submit("audio", sleep=0.5)
        fleet = system.fleet
        await asyncio.to_thread(until, lambda: len(fleet.counts("start")) >= 3, 20, "nothing runs")
        fleet.kill("worker-gpu-1")
        held = {task for _, _, task, *_ in map(json.loads, fleet.redis.hvals(fleet.keys.held))}
        started = {event["task"] for event in fleet.events("start") if event["worker"].startswith("worker-gpu-1")}
        # A task may have noted its end, and its worker died before it acknowledged the message.
        interrupted = started - set(fleet.counts()) | started & held
        await asyncio.to_thread(system.check_no_task_is_lost, interrupted)
        assert {task for task, starts in fleet.counts("start").items() if starts > 1} <= interrupted
        if interrupted:
            assert system.failed_over()[0]["workers"] == ["worker-gpu-1"]
        gone = (WorkerStatus.OFFLINE, WorkerStatus.SUSPECT)
        while (await system.registry.get_worker("worker-gpu-1")).status not in gone:
            await asyncio.sleep(0.1)  # if no task was interrupted, nothing above waits for this

    run_system({"worker-gpu-1": "gpu", "worker-gpu-2": "gpu"}, killed)


def test_no_task_is_lost_while_workers_join_and_leave(run_system):
    async def join_and_leave(system: System) -> None:
        fleet = system.fleet
        for _ in range(16):
            await system.submit("document", sleep=0.3)
        fleet.start_worker("worker-cpu-2", wait=False)
        await asyncio.to_thread(fleet.wait_for, "worker-cpu-2")
        await asyncio.to_thread(fleet.stop, "worker-cpu-1")
        films = [await system.submit("video") for _ in range(2)]
        await asyncio.sleep(0)
        assert not set(films) & set(fleet.counts("start"))
        fleet.start_worker("worker-gpu-1", "gpu", wait=False)
        await asyncio.to_thread(system.check_no_task_is_lost)
        assert {system.ran_on(task) for task in films} == {"worker-gpu-1"}
        used = {event["worker"].partition("@")[0] for event in fleet.events("end")}
        assert {"worker-cpu-1", "worker-cpu-2"} <= used
        emitted = [(event, fields.get("worker")) for event, fields in system.events]
        assert (Event.JOINED, "worker-cpu-2") in emitted
        assert (Event.LEFT, "worker-cpu-1") in emitted

    run_system({"worker-cpu-1": "cpu"}, join_and_leave)


def test_a_new_manager_continues_the_work_of_a_stopped_one(make_fleet: Callable[..., Fleet], tmp_path: Path):
    fleet = make_fleet()

    async def first() -> list[str]:
        system = System(fleet)
        async with system.manager:
            for _ in range(5):
                await system.submit("document")
        system.client.close()
        return system.sent

    async def second(sent: list[str]) -> None:
        system = System(fleet)
        system.sent = sent
        async with system.manager:
            stats = await system.manager.get_queue_stats()
            assert stats[QueueType.CPU_STANDARD].pending_tasks == 5
            fleet.start_worker("worker-cpu-1", wait=False)
            await asyncio.to_thread(system.check_no_task_is_lost)
        system.client.close()

    sent = asyncio.run(first())
    asyncio.run(second(sent))
