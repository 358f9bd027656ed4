"""A fleet on a real broker without worker processes: workers are registered and claim by the same script."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import redis
from celery import Celery

from morag_queue.agent.claim_request import ClaimCall, ClaimLane, claim_call
from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec import LedgerRecord
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.ledger import TaskEnd
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.scripts import Script
from morag_queue.core import lanes
from morag_queue.core.model import Capability, QueueType, TaskQueueEntry, WorkerInfo
from morag_queue.core.policy import Queues
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row
from morag_queue.settings import Settings

SOURCE = "https://example.org/report.html"  # a URL: nothing is read from a disk


class SimulatedFleet:
    def __init__(self, url: str, **settings: Any) -> None:
        self.url = url
        self.settings = Settings(redis_url=url, **settings)
        self.broker = RedisBroker(self.settings)
        self.client, self.keys = self.broker.client, self.broker.keys
        self._builder: MessageBuilder | None = None
        self._filled = 0.0

    def join(self, name: str, capability: str = "cpu", *, slots: int = 1, **info: Any) -> WorkerInfo:
        """Register a worker and send one heartbeat."""
        kind = Capability(capability)
        served = Queues().served_by(kind)
        known: dict[str, Any] = {
            "queues": tuple(queue.value for queue in served),
            "slots": slots,
            "host": "host",
            "pid": 1,
        }
        joined = WorkerInfo(worker=name, incarnation=f"{name}.1", capability=kind, **(known | info))
        assert self.broker.registry.register(joined) == ""
        self.beat(name)
        return joined

    def beat(self, name: str) -> None:
        assert self.broker.registry.beat(name, f"{name}.1", {"active": 0}, []) == "ok"

    def submit(self, *task_ids: str, source: str = SOURCE, **fields: Any) -> None:
        """Submit one task per id; `fields` are those of a row. Default: a NORMAL web page (cpu_standard, level 4)."""
        fields = {"content_type": "web", "estimated_duration": 1.0} | fields
        rows = [(0, Row.model_validate({"source": source, "task_id": one, **fields})) for one in task_ids]
        report = Submitter(self.broker, self.settings, builder=self.builder).submit(rows)
        assert not report.failed, report.failed

    @property
    def builder(self) -> MessageBuilder:
        self._builder = self._builder or MessageBuilder()
        return self._builder

    def fill(self, task_ids: Iterable[str], *, level: int = 4, queue: QueueType = QueueType.CPU_STANDARD) -> None:
        """Queue many tasks fast, without probing and routing."""
        now = self._filled = max(self.broker.now(), self._filled)
        batch = []
        for n, one in enumerate(task_ids):
            entry = TaskQueueEntry(
                task_id=one, task="morag.worker.process_web_page_task", args=(SOURCE, {}), source=SOURCE, queue=queue,
                lane=queue.value, level=level, estimated_duration=1.0, enqueued_at=now + n / 1e4,
            )  # fmt: skip
            text, record = self.builder.message(entry)
            batch.append(OutgoingMessage(one, text, record, queue.value, queue.value, level, False))
        self.broker.submit(batch)
        self._filled += len(batch) / 1e4

    def send(self, task_id: str, lane: str = "cpu_standard", level: int = 4, **options: Any) -> None:
        """Send one task through plain Celery, without our header and ledger entry."""
        with Celery("producer", broker=self.url, set_as_current=False) as app:
            app.conf.broker_transport_options = {"priority_steps": list(range(10))}
            app.send_task(
                "tasks.foreign", ("a",), queue=lane, priority=level, task_id=task_id, ignore_result=True, **options
            )

    def claim(self, name: str) -> str | None:
        """Let the worker claim a task; return its id, or None if there is none."""
        info = next(view.info for view in self.broker.observe()[0].workers if view.info.worker == name)
        read = [ClaimLane(lanes.lane(queue, name), queue, is_own=True) for queue in info.queues]
        read += [ClaimLane(queue, queue, is_own=False) for queue in info.queues]
        call = claim_call(name, info.incarnation, read, info.priority_steps, self.keys, tag=str(uuid4()))
        taken = Script(self.client, self.keys, ClaimCall)(call)
        return json.loads(taken[1])["headers"]["id"] if taken[0] else None

    def end(self, task_id: str, outcome: str = "completed", error: str = "", run_seconds: float = 2.0) -> None:
        """End a held task on its worker, as the agent would."""
        held = next(one for one in self.broker.observe()[0].held if one.task_id == task_id)
        text = self.client.hget(self.keys.unacked, held.tag)
        assert text is not None
        raw = json.loads(text)[0]
        record = raw["headers"].get("morag_queue", {})
        record |= {
            "state": outcome, "task": raw["headers"]["task"], "lane": held.lane, "worker": held.worker,
            "started_at": held.claimed_at, "wait_seconds": 1.0, "run_seconds": run_seconds, "error": error,
        }  # fmt: skip
        queue = lanes.split(held.lane)[0]
        assert self.broker.ledger.settle(
            TaskEnd(held.tag, task_id, held.worker, queue, outcome, 1.0, run_seconds, LedgerRecord(record))
        )

    def ids(self, lane: str, level: int) -> list[str]:
        """Return the task ids in one list, the next to run first."""
        texts = self.client.lrange(self.keys.list(lane, level), 0, -1)
        return [json.loads(text)["headers"]["id"] for text in reversed(texts)]

    def message(self, lane: str, level: int, n: int = 0) -> dict[str, Any]:
        """Return the message at index `n` of a list; 0 is the next to run."""
        text = self.client.lindex(self.keys.list(lane, level), -1 - n)
        assert text is not None, f"fewer than {n + 1} wait in {lane} at level {level}"
        message: dict[str, Any] = json.loads(text)
        return message


@contextmanager
def connected(url: str, name: str) -> Iterator[redis.Redis]:
    """Open a connection under a client name, as the broker sees a live worker."""
    with redis.Redis.from_url(url, client_name=name) as client:
        client.ping()
        yield client
