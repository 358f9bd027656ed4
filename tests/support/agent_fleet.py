"""A fleet whose workers run `tests.e2e.app`, and tasks with ledger entries."""

import json
from typing import Any
from uuid import uuid4

import redis

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.workers import Registry
from morag_queue.core import lanes
from morag_queue.core.model import TaskQueueEntry
from morag_queue.local.waiting import until

from .fleet import Fleet

APP = "tests.e2e.app"


class AgentFleet(Fleet):
    """`start_worker` runs `tests.e2e.app`, with a heartbeat every 0.2 s."""

    def __init__(self, *, env: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "0.2", **(env or {})}, **more)
        self._wire = MessageBuilder()
        self.redis_bytes = redis.Redis.from_url(self.url)

    def start_worker(self, name: str, capability: str = "cpu", *, app: str = APP, **more: Any) -> Any:
        return super().start_worker(name, capability, app=app, **more)

    def submit(self, task: str, *args: Any, lane: str = "cpu_standard", level: int = 4) -> str:
        """Queue one task with its ledger entry, as `submit` does; return its id."""
        task_id = str(uuid4())
        assert self.offer(task, *args, task_id=task_id, lane=lane, level=level)
        return task_id

    def offer(self, task: str, *args: Any, task_id: str, lane: str, level: int) -> bool:
        """Queue one task of that id; return whether it was, because it is not while a task of that id is open."""
        queue = lanes.queue_of(lane)
        assert queue is not None
        entry = TaskQueueEntry(
            task_id=task_id, task=task, args=args, queue=queue, lane=lane, level=level,
            enqueued_at=self.redis.time()[0],
        )  # fmt: skip
        text, record = self._wire.message(entry)
        message = OutgoingMessage(task_id, text, record, queue.value, lane, level, "." in lane)
        return self.ledger.submit([message]) == [True]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.redis_bytes, self.keys, 60)

    @property
    def registry(self) -> Registry:
        return Registry(self.redis_bytes, self.keys, 60)

    def state(self, task_id: str) -> str:
        return str(json.loads(self.redis.get(self.keys.task(task_id)) or "{}").get("state", "unknown"))

    def until_states(self, expected: dict[str, str], seconds: float = 30) -> None:
        """Wait until each task (by id) has that state in the ledger."""
        until(
            lambda: all(self.state(task) == wanted for task, wanted in expected.items()),
            seconds,
            lambda: f"{ {task: (self.state(task), wanted) for task, wanted in expected.items()} }; {self.where()}",
        )

    def until_started(self, *task_ids: str, seconds: float = 20) -> None:
        wanted = set(task_ids)
        until(
            lambda: wanted <= self.counts("start").keys(),
            seconds,
            lambda: f"did not start: {wanted - self.counts('start').keys()}; {self.where()}",
        )

    def until_nothing_is_unacked(self, seconds: float = 20) -> None:
        """Wait until no worker holds a message."""
        until(lambda: self.unacked_counts() == (0, 0, 0), seconds, lambda: f"still unacked: {self.where()}")

    def unacked_counts(self) -> tuple[int, int, int]:
        """Return the sizes of `unacked`, `unacked_index` and `held`."""
        k = self.keys
        return self.redis.hlen(k.unacked), self.redis.zcard(k.unacked_index), self.redis.hlen(k.held)

    def incarnation(self, worker: str) -> str:
        return str(self.redis.hget(self.keys.incarnations, worker))

    def client_name(self, worker: str) -> str:
        return str(json.loads(self.redis.hget(self.keys.workers, worker) or "")["client_name"])

    def claims(self, worker: str) -> bool:
        """Whether the worker claims: the server then tracks the keys that one of its connections has read."""
        name = self.client_name(worker)
        return any(one["name"] == name and "t" in one["flags"] for one in self.redis.client_list())

    def close_connections(self, worker: str) -> int:
        """Close the worker's connections to the broker; return their number."""
        name = self.client_name(worker)
        mine = [one["id"] for one in self.redis.client_list() if one["name"] == name]
        return sum(self.redis.client_kill_filter(_id=number) for number in mine)

    def close(self) -> None:
        self.redis_bytes.close()
        super().close()
