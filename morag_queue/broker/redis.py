"""The Redis broker: one fleet on one server. Every Redis command of the command line starts here."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType
from morag_queue.core.policy import Queues
from morag_queue.core.recovery.liveness import Connections
from morag_queue.core.snapshot import Snapshot, Totals
from morag_queue.core.words import some
from morag_queue.core.worker_status import agent_nodes
from morag_queue.errors import BrokerError
from morag_queue.settings import Settings, mask_url

from . import client_list, counters, snapshot
from .broken import BrokenValues, is_wrong_type
from .keys import Keys, fixed_keys
from .scripts import Script, sha
from .steps import QueueSteps
from .translated import translated

if TYPE_CHECKING:
    from redis import Redis

    from .celery_control import CeleryControl
    from .codec import LedgerRecord
    from .contract import JournalNote, OutgoingMessage
    from .dead_letters import DeadLetters
    from .ended import EndedTasks
    from .journal import Journal
    from .lanes import Moves
    from .leader import Leases, StateStore
    from .ledger import Ledger
    from .lost_work import LostWork
    from .pauses import Pauses
    from .requeue import Requeues
    from .results import Results
    from .undo import UndoRecords
    from .workers import ClientConnections, Cordons, Registry


class RedisBroker:
    """One fleet on one Redis. Each method raises BrokerUnreachable or BrokerError, with a message for the user.

    Its parts are imported on first use: `stats` needs none of them and must start fast.
    """

    def __init__(self, settings: Settings, client: "Redis | None" = None) -> None:
        self.settings = settings
        self.client = self._connected() if client is None else client
        self.keys = Keys(settings.namespace, settings.broker.global_keyprefix, settings.broker.sep)
        self.broken = BrokenValues(self.keys)

    def _connected(self) -> "Redis":
        from .connection import connect

        with translated(self.settings.redis_url):
            return connect(self.settings.redis_url, self.settings.broker)

    @property
    def fleet(self) -> str:
        """The fleet's name in plans: the namespace and the server, without the password."""
        return f"{self.settings.namespace}@{mask_url(self.settings.redis_url.rpartition('@')[2])}"

    @property
    def queues(self) -> Queues:
        return self.settings.queues

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Context in which client errors are raised as errors of this package.

        The server does not say which key has another type: it is looked for.
        """
        try:
            with translated(self.settings.redis_url):
                yield
        except BrokerError as error:
            if is_wrong_type(error) and (wrong := self._wrong_keys()):
                raise BrokerError(f"{error}; of another type: {some(wrong)}") from error
            raise

    def _wrong_keys(self) -> list[str]:
        """The keys of fixed names that have another type than ours."""
        wanted = fixed_keys(self.keys)
        pipe = self.client.pipeline(transaction=False)
        for key in wanted:
            pipe.type(key)
        with translated(self.settings.redis_url):
            kinds = pipe.execute(raise_on_error=False)
        return [
            key
            for (key, kind), found in zip(wanted.items(), kinds, strict=True)
            if isinstance(found, bytes) and found.decode() not in (kind, "none")
        ]

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
        from .results import ResultReader, Results

        return Results(ResultReader.of_settings(self.client, self.keys, self.settings), self.ledger)

    @cached_property
    def moves(self) -> "Moves":
        from .lanes import Moves

        return Moves(self.client, self.keys)

    @cached_property
    def dead(self) -> "DeadLetters":
        from .dead_letters import DeadLetters

        return DeadLetters(self.client, self.keys, self.settings.ledger.retention_seconds, self.broken)

    @cached_property
    def ended(self) -> "EndedTasks":
        from .ended import EndedTasks

        return EndedTasks(self.client, self.keys, self.settings.ledger.retention_seconds, self.broken)

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
    def pauses(self) -> "Pauses":
        from .pauses import Pauses

        return Pauses(self.client, self.keys)

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

        return Journal(self.client, self.keys, self.broken)

    @cached_property
    def undo(self) -> "UndoRecords":
        from .undo import UndoRecords

        return UndoRecords(self.client, self.keys, self.settings.ledger.retention_seconds)

    @cached_property
    def _observe(self) -> Any:
        return Script(self.client, self.keys, snapshot.ObserveCall)

    @cached_property
    def _steps(self) -> QueueSteps:
        return QueueSteps(self.client, self.settings)

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        with self.translated():
            return self.registry.now()

    def observe(self, depth: int = 1, *, partial: bool = False) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
        """Read the fleet and the totals of each queue in one round trip. Costs by the fleet, not by the backlog.

        `depth` is the number of entries read from each end of each shared list. Values that cannot be read are left
        out, see `broken`; a key of another type raises BrokerError, unless `partial`, for verbs that change nothing.
        """
        call = snapshot.ObserveCall(self.keys.prefix, self.keys.sep, depth, tuple(QueueType))
        with self.translated():
            return self._decoded(self._observe(call), depth, partial=partial)

    def observe_with_windows(
        self, *lengths: float
    ) -> tuple[Snapshot, Mapping[QueueType, Totals], list[Mapping[QueueType, Window]]]:
        """`observe`, and `windows` of these lengths (seconds), in one round trip.

        This host's clock tells which counters to read. Where the server's clock asks for others (the next minute has
        begun, or one of the clocks is wrong), they are read in a second round trip.
        """
        call = snapshot.ObserveCall(self.keys.prefix, self.keys.sep, 1, tuple(QueueType))
        keys, args = call.words(self.keys)
        guessed = list(
            dict.fromkeys(key for length in lengths for key in counters.window_keys(self.keys, time.time(), length))
        )
        pipe = self.client.pipeline(transaction=False)
        pipe.evalsha(sha(call.SCRIPT), len(keys), *keys, *args)
        counters.request_counters(pipe, self.keys, guessed)
        with self.translated():
            answer, *found = pipe.execute(raise_on_error=False)
            if isinstance(answer, Exception):
                from redis.exceptions import NoScriptError

                if not isinstance(answer, NoScriptError):
                    raise answer
                answer = self._observe(call)
            read = counters.answered_counters(self.keys, guessed, found, self.broken) or {}
            seen, totals = self._decoded(answer, 1, partial=True)
            at = seen.taken_at
            wanted = {key for length in lengths for key in counters.window_keys(self.keys, at, length)}
            if missing := wanted - read.keys():
                read = {**read, **counters.read_counters(self.client, self.keys, missing, self.broken)}
        return seen, totals, [counters.window(self.keys, at, length, read, self.broken) for length in lengths]

    def _decoded(self, answer: Any, depth: int, *, partial: bool) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
        broken = BrokenValues(self.keys)
        seen, totals = snapshot.decode_snapshot(answer, self.fleet, self.keys, broken, depth)
        self.broken.update(broken)
        if not partial:
            broken.refuse_wrong_types()
        steps = self._steps.of(seen.nodes, lambda: agent_nodes(seen, self.settings.policy))
        return replace(seen, steps=steps), totals

    def connections(self) -> Connections | None:
        """The open connections by name; None if the login may not list them. The server lists all of its clients."""
        from redis.exceptions import NoPermissionError

        pipe = self.client.pipeline(transaction=False)
        client_list.request(pipe)
        pipe.info("server")
        pipe.time()
        with self.translated():
            clients, info, now = pipe.execute(raise_on_error=False)
            if isinstance(clients, NoPermissionError) or isinstance(info, NoPermissionError):
                return None
            for answer in (clients, info, now):
                if isinstance(answer, Exception):
                    raise answer
        up_since = float(now[0]) - float(info["uptime_in_seconds"]) - 1.0  # the server reports whole seconds
        return Connections(client_list.parsed(clients).names, up_since)

    def windows(self, now: float, seconds: float) -> Mapping[QueueType, Window]:
        """The counts of each queue in the last `seconds`, see `counters.window`."""
        with self.translated():
            wanted = counters.window_keys(self.keys, now, seconds)
            read = counters.read_counters(self.client, self.keys, wanted, self.broken)
        return counters.window(self.keys, now, seconds, read, self.broken)

    def minutes(self, numbers: Sequence[int]) -> list[Mapping[QueueType, Window]]:
        """The counts of each queue in single minutes, numbered from the epoch. A day of them is kept."""
        names = [self.keys.minute(number * 60) for number in numbers]
        with self.translated():
            read = counters.read_counters(self.client, self.keys, names, self.broken)
        return [counters.counts_by_queue([(name, one) for one in read[name]], 60.0, self.broken) for name in names]

    def submit(self, messages: Sequence["OutgoingMessage"], note: "JournalNote | None" = None) -> list[bool]:
        """Queue messages in order, `BATCH` per call. The answer is False for an id that is still open.

        The last call writes `note` to the journal, if none of the messages was refused.
        """
        from .ledger import BATCH

        answer: list[bool] = []
        for start in range(0, len(messages), BATCH):
            is_last = start + BATCH >= len(messages)
            with self.translated():
                answer += self.ledger.submit(messages[start : start + BATCH], note if is_last and all(answer) else None)
        return answer

    def records(self, task_ids: Iterable[str]) -> dict[str, "LedgerRecord"]:
        """The ledger records of those tasks that have one."""
        with self.translated():
            return self.ledger.records(task_ids)
