"""No sequence of commands puts work that requires a GPU where a worker without one reads, but by --allow-cpu.

The core's planners have their own properties, see tests/core/test_gpu_safety.py; here commands run on a real broker.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

from celery import Celery
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from morag_queue.core.edits.rules import MoveTarget
from morag_queue.core.lanes import lane
from morag_queue.core.model import Capability, Classification, ContentType, QueuePriority, QueueType, Requires
from morag_queue.core.plan import MoveLane, MoveTask, Plan
from morag_queue.core.policy import Binding, Policy
from morag_queue.errors import MoragQueueError
from morag_queue.operations.cordon import uncordon
from morag_queue.operations.dead_letters import drop
from morag_queue.operations.drain import Drain
from morag_queue.operations.drain_options import DrainOptions, DrainProgress
from morag_queue.operations.failover import Failover
from morag_queue.operations.journal import Undo
from morag_queue.operations.rebalance import run_once, run_plan
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row
from morag_queue.operations.sweep import Sweep
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import cancel, move, prioritise, retry
from morag_queue.service.manager import PriorityQueueManager
from tests.faults.test_killed_commands import NoControl
from tests.support.simulated_fleet import SOURCE, SimulatedFleet

WORKERS = {"gpu-1": "gpu", "hybrid-1": "hybrid", "cpu-1": "cpu", "odd-1": "cpu"}
"""odd-1 reads queues of its own choice, those of GPU work too."""

ANY_LANE = [lane(queue, worker) for queue in QueueType for worker in (None, *WORKERS, "unknown")]
workers = st.sampled_from([*WORKERS])
pins = st.none() | workers | st.just("unknown")
queues = st.none() | st.sampled_from(QueueType)
rarely = st.integers(0, 7).map(lambda n: n == 7)
levels = st.integers(0, 9)
numbers = st.integers(0, 3)
kinds = st.sampled_from([Requires.GPU, Requires.GPU, *Requires])


class Commands(RuleBasedStateMachine):
    """Operators run commands on a fleet, and workers run tasks."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.allowed: set[str] = set()

    @initialize(
        binding=st.sampled_from(["late", "early"]),
        odd=st.sets(st.sampled_from(QueueType), min_size=1, max_size=2),
    )
    def start(self, binding: str, odd: set[QueueType]) -> None:
        self.fleet = fleet = SimulatedFleet(self.url, policy=Policy(binding=Binding(binding)))
        fleet.client.flushall()
        fleet.broker.__dict__["control"] = NoControl()
        for name, capability in WORKERS.items():
            reads = {"queues": tuple(queue.value for queue in odd)} if name == "odd-1" else {}
            fleet.join(name, capability, slots=2, **reads)
        self.app = Celery("service", broker=self.url, set_as_current=False)
        self.manager = PriorityQueueManager(self.app, None, settings=fleet.settings)
        for n, requires in enumerate([*Requires, Requires.GPU, Requires.GPU]):
            priority = [QueuePriority.NORMAL, QueuePriority.HIGH][n % 2]
            fields = {"requires": requires, "priority": priority, "worker": None, "queue": None}
            self.submit(allow_cpu=False, force=False, **fields)

    def teardown(self) -> None:
        if hasattr(self, "fleet"):
            self.fleet.client.close()
            self.app.close()

    # -- what is true after each command

    @invariant()
    def no_gpu_work_waits_where_a_worker_without_a_gpu_reads(self) -> None:
        if not hasattr(self, "fleet"):
            return
        snapshot, _ = self.fleet.broker.observe()
        for view in snapshot.workers:
            if view.info.capability is not Capability.CPU:
                continue
            for name in (lane(QueueType(queue), owner) for queue in view.info.queues for owner in (None, view.worker)):
                found = {one for level in range(10) for one in self.gpu_work(name, level)}
                assert found <= self.allowed, f"{found - self.allowed} in {name}, which {view.worker} reads"

    def gpu_work(self, name: str, level: int) -> list[str]:
        texts = self.fleet.client.lrange(self.fleet.keys.list(name, level), 0, -1)
        headers = [json.loads(text)["headers"] for text in texts]
        return [one["id"] for one in headers if one.get("morag_queue", {}).get("requires") == "gpu"]

    # -- commands

    @rule(requires=kinds, priority=st.sampled_from(QueuePriority), worker=pins, queue=queues,
          force=st.booleans(), allow_cpu=rarely)  # fmt: skip
    def submit(self, allow_cpu: bool, force: bool, **fields: Any) -> None:
        row = Row(source=SOURCE, content_type=ContentType.WEB, estimated_duration=1.0, task_id=self.new_id(), **fields)
        self.allow(allow_cpu, [str(row.task_id)])
        Submitter(
            self.fleet.broker, self.fleet.settings, force=force, allow_cpu=allow_cpu, builder=self.fleet.builder
        ).submit([(0, row)])  # fmt: skip

    @rule(requires=kinds, worker=pins, queue=queues, force=st.booleans(), allow_cpu=rarely)
    def submit_by_the_service(self, requires: Requires, allow_cpu: bool, **options: Any) -> None:
        task_id = self.new_id()
        self.allow(allow_cpu, [task_id])
        found = Classification(
            source=SOURCE, content_type=ContentType.WEB, requires=requires, priority=QueuePriority.NORMAL,
            estimated_minutes=1.0, memory_gb=0.1, disk_gb=0.1, confidence=1.0, complexity="low",
            requirements=(), reasons=(),
        )  # fmt: skip
        with refusals():
            asyncio.run(self.manager.submit_task(found, [], {}, task_id=task_id, allow_cpu=allow_cpu, **options))

    @rule(worker=st.none() | workers, queue=queues, force=st.booleans(), allow_cpu=rarely, first=numbers)
    def move(self, worker: str | None, queue: QueueType | None, force: bool, allow_cpu: bool, first: int) -> None:
        if worker is None and queue is None:
            return
        ids = self.open_ids()[first : first + 1 if allow_cpu else None]
        self.allow(allow_cpu, ids)
        move(self.editor("task move"), ids, MoveTarget(queue, worker), force=force, allow_cpu=allow_cpu)

    @rule(priority=st.sampled_from(QueuePriority), first=numbers)
    def prioritise(self, priority: QueuePriority, first: int) -> None:
        prioritise(self.editor("task prio"), self.open_ids()[first:], priority)

    @rule(first=numbers)
    def cancel(self, first: int) -> None:
        cancel(self.editor("task cancel"), self.open_ids()[first : first + 3], terminate=False)

    @rule(reset=st.booleans(), first=numbers)
    def retry(self, reset: bool, first: int) -> None:
        retry(self.editor("task retry"), self.ids[first:], reset=reset)

    @rule(reset=st.booleans())
    def requeue_the_dead(self, reset: bool) -> None:
        retry(self.editor("dead requeue"), self.dead_ids(), reset=reset)

    @rule(is_meant=rarely)
    def drop_the_dead(self, is_meant: bool) -> None:
        if is_meant:
            drop(self.fleet.broker, self.fleet.settings, self.dead_ids(), who="ann")

    @rule(n=st.integers(0, 5))
    def undo(self, n: int) -> None:
        entries = self.fleet.broker.journal.latest(6)
        with refusals():
            if n < len(entries):
                Undo(self.fleet.broker, self.fleet.settings, who="ann")(entries[n])

    @rule()
    def rebalance(self) -> None:
        run_once(self.fleet.broker, self.fleet.settings, who="ann")

    @rule(to=st.sampled_from(ANY_LANE), to_level=levels, whole=st.booleans())
    def apply_a_plan_of_their_own(self, to: str, to_level: int, whole: bool) -> None:
        """A plan that was edited by hand: all that waits, to this lane."""
        steps: list[MoveLane | MoveTask] = []
        for source, level in ((source, level) for source in ANY_LANE for level in range(10)):
            place = {"source": source, "target": to, "level": level, "to_level": to_level, "reason": "by hand"}
            ids = self.fleet.ids(source, level)
            if whole and ids:
                steps.append(MoveLane(**place, count=len(ids), keeps_gpu=False))
            else:
                steps += [MoveTask(**place, task_id=one, keeps_gpu=False) for one in ids]
        plan = Plan(
            plan_id=str(uuid4()), verb="rebalance", fleet=self.fleet.broker.fleet, taken_at=0.0, steps=tuple(steps)
        )  # fmt: skip
        with refusals():
            run_plan(self.fleet.broker, self.fleet.settings, plan, who="ann")

    @rule(worker=workers)
    def drain(self, worker: str) -> None:
        progress = DrainProgress(pause=lambda _: None)
        Drain(self.fleet.broker, worker, DrainOptions(who="ann", force=True), progress).run()

    @rule(worker=workers)
    def uncordon(self, worker: str) -> None:
        uncordon(self.fleet.broker, worker, who="ann")

    @rule(reads=st.sets(st.sampled_from(QueueType), min_size=1, max_size=2))
    def odd_1_starts_again_with_other_queues(self, reads: set[QueueType]) -> None:
        """Where GPU work waits already, `doctor` reports such a worker."""
        if any(
            self.gpu_work(lane(queue, owner), level)
            for queue in reads
            for owner in (None, "odd-1")
            for level in range(10)
        ):
            return
        self.start_again("odd-1", queues=tuple(queue.value for queue in reads))

    @rule(worker=workers)
    def fail_over(self, worker: str) -> None:
        """Its process starts again afterwards."""
        Failover(self.fleet.broker, who="ann", pause=lambda _: None).run_named([worker], force=True)
        self.start_again(worker)

    def start_again(self, worker: str, **changed: Any) -> None:
        registry = self.fleet.broker.registry
        info = self.fleet.broker.observe()[0].worker_by_id[worker].info
        started_again = replace(info, incarnation=f"{worker}.{uuid4()}", **changed)
        fenced = registry.acting(worker)
        assert registry.register(started_again, fenced.incarnation if fenced else "") == ""
        assert registry.beat(worker, started_again.incarnation, {"active": 0}, []) in ("ok", "draining")

    @rule()
    def recover(self) -> None:
        Failover(self.fleet.broker, who="ann", pause=lambda _: None).run_dead(Sweep(self.fleet.broker))

    # -- the workers

    @rule(worker=workers, outcome=st.sampled_from(["completed", "failed", "", ""]))
    def work(self, worker: str, outcome: str) -> None:
        task_id = self.fleet.claim(worker)
        if task_id is None:
            return
        record = self.fleet.broker.records([task_id]).get(task_id)
        needs_gpu = record is not None and record.requires is Requires.GPU
        assert not needs_gpu or WORKERS[worker] != "cpu" or task_id in self.allowed
        if outcome:
            self.fleet.end(task_id, outcome, "E" if outcome == "failed" else "")

    # -- what the rules share

    @property
    def ids(self) -> list[str]:
        return [key.decode().removeprefix("mq:task:") for key in sorted(self.fleet.client.scan_iter("mq:task:*"))]

    def open_ids(self) -> list[str]:
        return [one for one, record in self.fleet.broker.records(self.ids).items() if record.state == "queued"]

    def dead_ids(self) -> list[str]:
        return [letter.task_id for letter in self.fleet.broker.dead.all()]

    def new_id(self) -> str:
        return f"t-{self.fleet.client.incr('tests:ids'):04}"

    def allow(self, allow_cpu: bool, task_ids: Sequence[str]) -> None:
        if allow_cpu:
            self.allowed.update(task_ids)

    def editor(self, verb: str) -> TaskEditor:
        return TaskEditor(self.fleet.broker, self.fleet.settings, verb, who="ann")


def refusals() -> AbstractContextManager[None]:
    """A command may refuse; it must not do what it refuses."""
    return suppress(MoragQueueError)


def test_no_sequence_of_commands_puts_gpu_work_where_a_worker_without_a_gpu_reads(valkey: str) -> None:
    Commands.url = valkey
    run_state_machine_as_test(
        Commands,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
