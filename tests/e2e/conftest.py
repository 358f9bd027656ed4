"""A fleet whose workers run `tests.e2e.app`, with tasks that the ledger knows."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.workers import Registry
from morag_queue.core import lanes
from morag_queue.core.model import TaskQueueEntry
from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

APP = "tests.e2e.app"


class AgentFleet(Fleet):
    """`start_worker` runs the tasks of `tests.e2e.app`; beats come often."""

    def __init__(self, *, env: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "0.2", **(env or {})}, **more)
        self._wire = MessageBuilder()
        self.redis_bytes = redis.Redis.from_url(self.url)

    def start_worker(self, name: str, capability: str = "cpu", *, app: str = APP, **more: Any) -> Any:
        return super().start_worker(name, capability, app=app, **more)

    def submit(self, task: str, *args: Any, lane: str = "cpu_standard", level: int = 4) -> str:
        """Queues one task with its ledger entry, as `submit` does. Returns its id."""
        queue = lanes.queue_of(lane)
        assert queue is not None
        entry = TaskQueueEntry(
            task_id=str(uuid4()), task=task, args=args, queue=queue, lane=lane, level=level,
            enqueued_at=self.redis.time()[0],
        )  # fmt: skip
        text, record = self._wire.message(entry)
        message = OutgoingMessage(entry.task_id, text, record, queue.value, lane, level, "." in lane)
        assert self.ledger.submit([message]) == [True]
        return entry.task_id

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.redis_bytes, self.keys, 60)

    @property
    def registry(self) -> Registry:
        return Registry(self.redis_bytes, self.keys, 60)

    def state(self, task_id: str) -> str:
        return str(json.loads(self.redis.get(self.keys.task(task_id)) or "{}").get("state", "unknown"))

    def until_states(self, expected: dict[str, str], seconds: float = 30) -> None:
        """Until each task (by id) is in that state of the ledger."""
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
            lambda: f"never started: {wanted - self.counts('start').keys()}; {self.where()}",
        )

    def until_empty(self, seconds: float = 20) -> None:
        """Until nothing is in any hand."""
        until(lambda: self.in_flight() == (0, 0, 0), seconds, lambda: f"still in hand: {self.where()}")

    def in_flight(self) -> tuple[int, int, int]:
        k = self.keys
        return self.redis.hlen(k.unacked), self.redis.zcard(k.unacked_index), self.redis.hlen(k.held)

    def incarnation(self, worker: str) -> str:
        return str(self.redis.hget(self.keys.incarnations, worker))

    def client_name(self, worker: str) -> str:
        return str(json.loads(self.redis.hget(self.keys.workers, worker))["client_name"])

    def cut(self, worker: str) -> int:
        """Closes the worker's connections to the broker. Returns how many."""
        name = self.client_name(worker)
        mine = [one["id"] for one in self.redis.client_list() if one["name"] == name]
        return sum(self.redis.client_kill_filter(_id=number) for number in mine)

    def close(self) -> None:
        self.redis_bytes.close()
        super().close()


@pytest.fixture
def make_agents(make_fleet: Callable[..., Any]) -> Callable[..., AgentFleet]:
    """As `make_fleet`, of `AgentFleet`."""

    def make(**options: Any) -> AgentFleet:
        fleet: AgentFleet = make_fleet(kind=AgentFleet, **options)
        return fleet

    return make
