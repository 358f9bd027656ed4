"""The Redis broker: one fleet on one server. Every Redis command of the command line starts here."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from redis import Redis
from redis.exceptions import NoPermissionError

from morag_queue.core.histogram import Window
from morag_queue.core.model import Pause, QueueType
from morag_queue.core.policy import Queues
from morag_queue.core.recovery.liveness import Connections
from morag_queue.core.snapshot import Snapshot, Totals
from morag_queue.core.worker_status import agent_nodes
from morag_queue.settings import Settings, mask_url

from . import client_list, snapshot
from .connection import connect, translated
from .keys import Keys
from .scripts import Call, Script
from .steps import QueueSteps

if TYPE_CHECKING:
    from .celery_control import CeleryControl
    from .codec import LedgerRecord
    from .contract import OutgoingMessage
    from .dead_letters import DeadLetters
    from .ended import EndedTasks
    from .journal import Journal
    from .lanes import Moves
    from .leader import Leases, StateStore
    from .ledger import Ledger
    from .lost_work import LostWork
    from .requeue import Requeues
    from .results import Results
    from .workers import ClientConnections, Cordons, Registry

_COARSE = 6 * 3600.0
"""Longer windows are summed from hours instead of minutes, so that at most 360 hashes are read."""


@dataclass(frozen=True)
class PauseCall(Call):
    SCRIPT: ClassVar = "pause"
    KEYS: ClassVar = ("paused", "pauses")

    queue: str
    record: str


class RedisBroker:
    """One fleet on one Redis. Each method raises BrokerUnreachable or BrokerError, with a message for the user.

    Its parts are imported on first use: `stats` needs none of them and must start fast.
    """

    def __init__(self, settings: Settings, client: Redis | None = None) -> None:
        self.settings = settings
        with translated(settings.redis_url):
            self.client = connect(settings.redis_url, settings.broker) if client is None else client
        self.keys = Keys(settings.namespace, settings.broker.global_keyprefix, settings.broker.sep)

    @property
    def fleet(self) -> str:
        """The fleet's name in plans: the namespace and the server, without the password."""
        return f"{self.settings.namespace}@{mask_url(self.settings.redis_url.rpartition('@')[2])}"

    @property
    def queues(self) -> Queues:
        return self.settings.queues

    def translated(self) -> AbstractContextManager[None]:
        """Context in which client errors are raised as errors of this package."""
        return translated(self.settings.redis_url)

    @cached_property
    def registry(self) -> "Registry":
        from .workers import Registry

        return Registry(self.client, self.keys, self.settings.ledger.retention_seconds, self.queues)

    @cached_property
    def ledger(self) -> "Ledger":
        from .ledger import Ledger

        return Ledger(self.client, self.keys, self.settings.ledger.retention_seconds)

    @cached_property
    def results(self) -> "Results":
        from .results import Results

        return Results(self.client, self.keys, self.ledger)

    @cached_property
    def moves(self) -> "Moves":
        from .lanes import Moves

        return Moves(self.client, self.keys)

    @cached_property
    def dead(self) -> "DeadLetters":
        from .dead_letters import DeadLetters

        return DeadLetters(self.client, self.keys, self.settings.ledger.retention_seconds)

    @cached_property
    def ended(self) -> "EndedTasks":
        from .ended import EndedTasks

        return EndedTasks(self.client, self.keys, self.settings.ledger.retention_seconds)

    @cached_property
    def requeues(self) -> "Requeues":
        from .requeue import Requeues

        return Requeues(self.client, self.keys, self.settings.ledger.retention_seconds)

    @cached_property
    def lost(self) -> "LostWork":
        from .lost_work import LostWork

        return LostWork(self.client, self.keys, self.settings.ledger.retention_seconds)

    @cached_property
    def evidence(self) -> "ClientConnections":
        from .workers import ClientConnections

        return ClientConnections(self.client, self.keys)

    @cached_property
    def cordons(self) -> "Cordons":
        from .workers import Cordons

        return Cordons(self.client, self.keys)

    @cached_property
    def control(self) -> "CeleryControl":
        from .celery_control import CeleryControl

        return CeleryControl(self.settings)

    @cached_property
    def leases(self) -> "Leases":
        from .leader import Leases

        return Leases(self.client, self.keys)

    @cached_property
    def state_store(self) -> "StateStore":
        from .leader import StateStore

        return StateStore(self.client, self.keys)

    @cached_property
    def journal(self) -> "Journal":
        from .journal import Journal

        return Journal(self.client, self.keys)

    @cached_property
    def _observe(self) -> Any:
        return Script(self.client, self.keys, snapshot.ObserveCall)

    @cached_property
    def _steps(self) -> QueueSteps:
        return QueueSteps(self.client, self.settings)

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        with translated(self.settings.redis_url):
            return self.registry.now()

    def observe(self, depth: int = 1) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
        """Read the fleet and the totals of each queue in one round trip. Costs by the fleet, not by the backlog.

        `depth` is the number of entries read from each end of each shared list.
        """
        call = snapshot.ObserveCall(self.keys.prefix, self.keys.sep, depth, tuple(QueueType))
        with translated(self.settings.redis_url):
            answer = self._observe(call)
        seen, totals = snapshot.decode_snapshot(answer, self.fleet, self.keys.sep, depth)
        with translated(self.settings.redis_url):
            steps = self._steps.of(seen.nodes, lambda: agent_nodes(seen, self.settings.policy))
        return replace(seen, steps=steps), totals

    def connections(self) -> Connections | None:
        """The open connections by name; None if the login may not list them. The server lists all of its clients."""
        pipe = self.client.pipeline(transaction=False)
        client_list.request(pipe)
        pipe.info("server")
        pipe.time()
        with translated(self.settings.redis_url):
            clients, info, time = pipe.execute(raise_on_error=False)
            if isinstance(clients, NoPermissionError) or isinstance(info, NoPermissionError):
                return None
            for answer in (clients, info, time):
                if isinstance(answer, Exception):
                    raise answer
        up_since = float(time[0]) - float(info["uptime_in_seconds"]) - 1.0  # the server reports whole seconds
        return Connections(client_list.parsed(clients).names, up_since)

    def windows(self, now: float, seconds: float) -> Mapping[QueueType, Window]:
        """The counts of each queue in the last `seconds`, to a minute (beyond six hours: to an hour).

        They cover whole minutes and the part of the current one that has passed, at most `seconds`: the length of the
        windows is exactly that time.
        """
        step, name = (60, self.keys.minute) if seconds <= _COARSE else (3600, self.keys.hour)
        pipe = self.client.pipeline(transaction=False)
        first, last = int(now - seconds) // step + 1, int(now) // step
        for number in range(first, last + 1):
            pipe.hgetall(name(number * step))
        with translated(self.settings.redis_url):
            found: Sequence[Mapping[bytes, bytes]] = pipe.execute()
        return _windows(found, now - first * step)

    def minutes(self, numbers: Sequence[int]) -> list[Mapping[QueueType, Window]]:
        """The counts of each queue in single minutes, numbered from the epoch. A day of them is kept."""
        pipe = self.client.pipeline(transaction=False)
        for number in numbers:
            pipe.hgetall(self.keys.minute(number * 60))
        with translated(self.settings.redis_url):
            return [_windows([fields], 60.0) for fields in pipe.execute()]

    def set_paused(self, queue: QueueType, pause: Pause | None) -> bool:
        """Pause a queue, or resume it with None. Return False if it was so already; a pause keeps its first record."""
        call = PauseCall(queue, "" if pause is None else pause.model_dump_json())
        with translated(self.settings.redis_url):
            return bool(Script(self.client, self.keys, PauseCall)(call))

    def submit(self, messages: Sequence["OutgoingMessage"]) -> list[bool]:
        """Queue messages in order, `BATCH` per call. The answer is False for an id that is still open."""
        from .ledger import BATCH

        answer: list[bool] = []
        for start in range(0, len(messages), BATCH):
            with translated(self.settings.redis_url):
                answer += self.ledger.submit(messages[start : start + BATCH])
        return answer

    def records(self, task_ids: Iterable[str]) -> dict[str, "LedgerRecord"]:
        """The ledger records of those tasks that have one."""
        with translated(self.settings.redis_url):
            return self.ledger.records(task_ids)


def _windows(found: Iterable[Mapping[bytes, bytes]], seconds: float) -> Mapping[QueueType, Window]:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    histograms: dict[tuple[str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for fields in found:
        for field, count in fields.items():
            queue, figure, *bucket = field.decode().split("|")
            if bucket:
                histograms[queue, figure][int(bucket[0])] += int(count)
            else:
                counts[queue][figure] += int(count)
    return {
        queue: Window(
            seconds=seconds,
            arrivals=counts[queue]["arrived"],
            completed=counts[queue]["completed"],
            failed=counts[queue]["failed"],
            wait_seconds=counts[queue]["wait_ms"] / 1000,
            run_seconds=counts[queue]["run_ms"] / 1000,
            waits=dict(histograms[queue, "wait"]),
            runs=dict(histograms[queue, "run"]),
        )
        for queue in QueueType
    }
