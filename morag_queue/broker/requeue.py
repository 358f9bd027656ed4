"""Requeue messages that workers hold, each to the front of a lane."""

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias
from uuid import uuid4

from morag_queue.core.enums import QueueType
from morag_queue.core.lanes import queue_of, split
from morag_queue.core.policy import Queues
from morag_queue.core.routing.gpu_safety import is_unsafe_lane, unsafe_queues

from . import codec
from .keys import Keys
from .ledger import END_KEYS
from .scripts import Call, Key, Script

if TYPE_CHECKING:
    from redis import Redis

Outcome: TypeAlias = Literal["moved", "gone", "early", "foreign", "quarantined", "cancelled"]
"""The result of a requeue, see requeue.lua."""

REVOKED_S = 3 * 3600
"""How long a cancelled tag is kept, in seconds: as long as a Celery worker keeps revoked ids."""

_REQUEUE_BURST = 250
"""Calls in flight at once."""


@dataclass(frozen=True, slots=True)
class RequeueRequest:
    """One message to requeue, first in `lane`. `incarnation` is its supposed holder, "" for none.

    `max_deaths`: deaths of owners after which the task is quarantined; None where this is no death. With
    `untouched_since` (seconds, server's clock) the message stays if a worker has touched it since. `eta` is written
    into a message that has none.
    """

    tag: str
    incarnation: str
    task_id: str
    lane: str
    level: int
    why: str = ""
    max_deaths: int | None = None
    untouched_since: float | None = None
    eta: str = ""


@dataclass(frozen=True)
class RequeueCall(Call):
    SCRIPT: ClassVar = "requeue"
    KEYS: ClassVar = ("unacked", "unacked_index", "held", "revoked", "lease", *END_KEYS, "lanes")

    list: Key
    task: Key
    tag: str
    incarnation: str
    new_tag: str
    lane: str
    level: int
    queue: str
    max_deaths: int | None
    why: str
    untouched_since: float | None
    eta: str
    retention: int
    term: str


@dataclass(frozen=True)
class RevokeCall(Call):
    """`keep_seconds`: older tags are dropped."""

    SCRIPT: ClassVar = "revoke"
    KEYS: ClassVar = ("revoked",)

    tag: str
    keep_seconds: int


class Requeues:
    """Takes messages back from workers of one fleet; each in one atomic step that is safe to repeat."""

    def __init__(self, client: "Redis", keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._requeue = Script(client, keys, RequeueCall)
        self._revoke = Script(client, keys, RevokeCall)

    def apply(self, requests: Iterable[RequeueRequest], *, term: str = "") -> list[Outcome]:
        """Requeue messages, each before those that wait in its lane. Return the outcomes in order.

        Raises ResponseError on a stale term.
        """
        wanted = list(requests)
        outcomes: list[Outcome] = []
        for start in range(0, len(wanted), _REQUEUE_BURST):
            pipe = self._client.pipeline(transaction=False)
            for request in wanted[start : start + _REQUEUE_BURST]:
                self._requeue(self._call(request, term), pipe)
            outcomes += (answer.decode() for answer in pipe.execute())
        return outcomes

    def revoke(self, tag: str) -> None:
        """Mark a held message as cancelled: when it is requeued, its task ends as cancelled instead."""
        self._revoke(RevokeCall(tag, REVOKED_S))

    def _call(self, request: RequeueRequest, term: str) -> RequeueCall:
        return RequeueCall(
            list=self._keys.list(request.lane, request.level), task=self._keys.task(request.task_id), tag=request.tag,
            incarnation=request.incarnation, new_tag=str(uuid4()), lane=request.lane, level=request.level,
            queue=queue_of(request.lane) or "", max_deaths=request.max_deaths, why=request.why,
            untouched_since=request.untouched_since, eta=request.eta, retention=self._retention, term=term,
        )  # fmt: skip


class ReturnLanes:
    """The lanes to which a worker out of service returns its messages, by the registry as it is now."""

    def __init__(self, client: "Redis", keys: Keys, queues: Queues) -> None:
        self._client, self._keys, self._queues = client, keys, queues

    def lane(self, held_lane: str, *, needs_gpu: bool) -> str:
        """The shared lane of the queue.

        Work that requires a GPU stays in the worker's own lane if a worker without one may read the shared lane. From
        there, `drain` moves it to a safe queue.
        """
        shared, worker = split(held_lane)
        return held_lane if worker and needs_gpu and is_unsafe_lane(shared, self._unsafe) else shared

    @cached_property
    def _unsafe(self) -> Container[QueueType]:
        records: Any = self._client.hgetall(self._keys.workers)
        cpu_readers: defaultdict[str, list[str]] = defaultdict(list)
        for worker, text in records.items():
            info = codec.read_worker(codec.text_of(worker), text)
            if info is not None and not info.capability.has_gpu:
                for queue in info.queues:
                    cpu_readers[queue].append(info.worker)
        return unsafe_queues(cpu_readers, self._queues)
