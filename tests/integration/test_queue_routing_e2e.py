"""The whole system: a service's manager, a broker, real workers of three kinds that come, go and die."""

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
from morag_queue.local.waiting import until
from morag_queue.settings import Settings
from morag_queue.watch.events import Event
from tests.support.fleet import Fleet


class System:
    """A fleet and a service on it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.told = fleet, list[tuple[Event, dict[str, Any]]]()
        self.client = redis.Redis.from_url(fleet.url)
        settings = Settings(redis_url=fleet.url)
        app = Celery("service", broker=fleet.url, backend=fleet.url, set_as_current=False)
        self.registry = WorkerRegistry(self.client, settings)
        self.classifier = IntelligentTaskClassifier(self.registry)
        self.manager = PriorityQueueManager(
            app, self.client, self.registry, self.classifier, settings=settings,
            tell=lambda event, /, **fields: self.told.append((event, fields)),
        )  # fmt: skip
        self.report = fleet.dir / "report.txt"
        self.report.write_text("A report of three pages.\n" * 400)
        self.sent: list[str] = []

    async def submit(self, content_type: str = "document", *, sleep: float = 0.05, **said: Any) -> str:
        """One file of that type; its task notes where it ran and sleeps."""
        known = {name: said.pop(name) for name in ("priority", "requires") if name in said}
        found = await self.classifier.classify_task(str(self.report), content_type, **known)
        args = [str(self.report), content_type, {"sleep": sleep}]
        self.sent.append(await self.manager.submit_task(found, args, {}, **said))
        return self.sent[-1]

    def ran_on(self, task_id: str) -> str:
        return next(one["worker"].partition("@")[0] for one in self.fleet.events("end") if one["task"] == task_id)

    def failed_over(self) -> list[dict[str, Any]]:
        return [fields for event, fields in self.told if event is Event.FAILED_OVER]

    def nothing_is_lost(self, may_run_twice: set[str] = frozenset()) -> None:
        self.fleet.until_ran(self.sent, 60)
        until(lambda: not self.fleet.account(self.sent).stuck, 30, lambda: f"stuck: {self.fleet.where()}")
        account = self.fleet.account(self.sent)
        assert not account.lost
        assert account.duplicated <= set(may_run_twice)


@pytest.fixture
def play(make_fleet: Callable[..., Fleet]) -> Callable[..., None]:
    """Runs a play of a system: starts these workers, starts the manager, and stops it at the end."""

    def run(workers: dict[str, str], play: Callable[[System], Coroutine[Any, Any, None]]) -> None:
        fleet = make_fleet()
        for name, kind in workers.items():
            fleet.start_worker(name, kind, wait=False)
        fleet.wait_for(*workers)
        system = System(fleet)

        async def whole() -> None:
            async with system.manager:
                await play(system)

        asyncio.run(whole())
        system.client.close()

    return run


MIXED = {"worker-gpu-1": "gpu", "worker-hybrid-1": "hybrid", "worker-cpu-1": "cpu"}


def test_the_whole_workflow_each_kind_of_work_runs_where_it_belongs_and_is_counted(play):
    async def workflow(system: System) -> None:
        films = [await system.submit("video") for _ in range(6)]
        songs = [await system.submit("audio") for _ in range(6)]
        pages = [await system.submit("document") for _ in range(6)]
        batch = [await system.submit("document", priority="BATCH") for _ in range(3)]
        await asyncio.to_thread(system.nothing_is_lost)
        assert {system.ran_on(task) for task in films + songs} <= {"worker-gpu-1", "worker-hybrid-1"}
        assert {system.ran_on(task) for task in pages + batch} <= {"worker-cpu-1", "worker-hybrid-1"}

        async def counted() -> dict[QueueType, int]:
            return {queue: one.completed_tasks for queue, one in (await system.manager.get_queue_stats()).items()}

        expected = {"gpu_priority": 6, "gpu_fallback": 6, "cpu_standard": 6, "cpu_batch": 3}
        for _ in range(100):
            if await counted() == expected:
                break
            await asyncio.sleep(0.1)  # the last acknowledgement is on its way
        assert await counted() == expected
        cpu = (await system.manager.get_queue_stats())[QueueType.CPU_STANDARD]
        assert cpu.average_processing_time > 0
        assert cpu.p95_wait_time > 0

    play(MIXED, workflow)


def test_urgent_work_overtakes_a_backlog_on_every_queue(play):
    async def urgent(system: System) -> None:
        backlog = [await system.submit("document", sleep=0.2, priority="BATCH") for _ in range(20)]
        backlog += [await system.submit("document", sleep=0.2) for _ in range(20)]
        await asyncio.to_thread(until, lambda: len(system.fleet.counts("start")) >= 3, 20, "nothing runs")
        first = await system.submit("document", priority=QueuePriority.URGENT.name)
        submitted_at = time.time()
        await asyncio.to_thread(system.nothing_is_lost)
        starts = system.fleet.events("start")
        order = [one["task"] for one in starts]
        before = [one for one in starts[: order.index(first)] if one["at"] > submitted_at]
        # Only tasks that the workers had already reserved may start before it.
        assert len(before) <= 4, f"{len(before)} of {len(backlog)} tasks started between its submission and its start"

    play({"worker-cpu-1": "cpu", "worker-cpu-2": "cpu"}, urgent)


def test_work_of_a_worker_that_is_killed_runs_elsewhere_and_only_what_ran_there_runs_twice(play):
    async def killed(system: System) -> None:
        for _ in range(12):
            await system.submit("audio", sleep=0.5)
        fleet = system.fleet
        await asyncio.to_thread(until, lambda: len(fleet.counts("start")) >= 3, 20, "nothing runs")
        fleet.kill("worker-gpu-1")
        held = {task for _, _, task, *_ in map(json.loads, fleet.redis.hvals(fleet.keys.held))}
        on_it = {one["task"] for one in fleet.events("start") if one["worker"].startswith("worker-gpu-1")}
        left = on_it - set(fleet.counts()) | on_it & held  # one may have noted its end and died before it said so
        await asyncio.to_thread(system.nothing_is_lost, left)
        assert {one for one, n in fleet.counts("start").items() if n > 1} <= left
        if left:
            assert system.failed_over()[0]["workers"] == ["worker-gpu-1"]
        gone = (WorkerStatus.OFFLINE, WorkerStatus.SUSPECT)
        while (await system.registry.get_worker("worker-gpu-1")).status not in gone:
            await asyncio.sleep(0.1)  # where it had nothing in hand, nothing above waits for it to be missed

    play({"worker-gpu-1": "gpu", "worker-gpu-2": "gpu"}, killed)


def test_workers_that_come_and_go_change_where_work_runs_and_lose_none(play):
    async def come_and_go(system: System) -> None:
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
        await asyncio.to_thread(system.nothing_is_lost)
        assert {system.ran_on(task) for task in films} == {"worker-gpu-1"}
        shares = {one["worker"].partition("@")[0] for one in fleet.events("end")}
        assert {"worker-cpu-1", "worker-cpu-2"} <= shares
        told = [(event, fields.get("worker")) for event, fields in system.told]
        assert (Event.JOINED, "worker-cpu-2") in told
        assert (Event.LEFT, "worker-cpu-1") in told

    play({"worker-cpu-1": "cpu"}, come_and_go)


def test_a_manager_that_ends_leaves_everything_to_the_next_one(make_fleet: Callable[..., Fleet], tmp_path: Path):
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
            await asyncio.to_thread(system.nothing_is_lost)
        system.client.close()

    sent = asyncio.run(first())
    asyncio.run(second(sent))
