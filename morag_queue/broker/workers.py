"""Workers with the agent: registration, heartbeats, cordons, and the evidence that one is dead."""

import json
import os
import socket
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from morag_queue.core.policy import Queues
from morag_queue.core.worker_records import HeldMessage, WorkerInfo

from . import codec
from .client_list import ClientList, client_list
from .codec import (
    LastBeat,
    WorkerProcess,
    read_held,
    read_last_beat,
    read_process,
    read_unacked,
    requires_gpu,
    text_of,
    whole_number,
    write_worker,
)
from .keys import Keys
from .ledger import Ledger
from .requeue import RequeueRequest, Requeues, ReturnLanes
from .results import ResultReader, Results
from .scripts import Call, Script
from .translated import fenced

if TYPE_CHECKING:
    from redis import Redis

    from morag_queue.core.model import Cordon, WorkerStatus

    from .contract import JournalNote

Pulse = Literal["ok", "fenced", "unknown", "draining"]
"""The answer to a heartbeat, see beat.lua."""


@dataclass(frozen=True)
class RegisterCall(Call):
    SCRIPT: ClassVar = "register"
    KEYS: ClassVar = ("workers", "incarnations", "beats")

    worker: str
    incarnation: str
    record: str
    replaces: str


@dataclass(frozen=True)
class BeatCall(Call):
    SCRIPT: ClassVar = "beat"
    KEYS: ClassVar = ("beats", "incarnations", "workers", "unacked_index", "cordons")

    worker: str
    incarnation: str
    figures: str
    tags: Sequence[str]


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The incarnation that acts under a worker's name at present."""

    incarnation: str
    process: WorkerProcess | None
    beat: LastBeat | None


class Registry:
    """Names, heartbeats and held messages, for the agent and for failover."""

    def __init__(self, client: "Redis", keys: Keys, retention_seconds: float, queues: Queues | None = None) -> None:
        self._client, self._keys, self._queues = client, keys, queues or Queues()
        self._register = Script(client, keys, RegisterCall)
        self._beat = Script(client, keys, BeatCall)
        reader = ResultReader(client, keys.result(""), "")
        self._results = Results(reader, Ledger(client, keys, retention_seconds))
        self._requeues = Requeues(client, keys, retention_seconds)

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def acting(self, worker: str) -> Predecessor | None:
        """The incarnation that acts under this name; None without one."""
        pipe = self._client.pipeline(transaction=False)
        for key in (self._keys.incarnations, self._keys.workers, self._keys.beats):
            pipe.hget(key, worker)
        incarnation, info, beat = pipe.execute()
        if incarnation is None:
            return None
        return Predecessor(text_of(incarnation), read_process(info), read_last_beat(beat))

    def register(self, info: WorkerInfo, replaces: str = "") -> str:
        """Register under the name. Return "" on success, else the incarnation (not `replaces`) that holds it."""
        answer: bytes = self._register(RegisterCall(info.worker, info.incarnation, write_worker(info), replaces))
        return text_of(answer)

    def beat(self, worker: str, incarnation: str, figures: dict[str, Any], tags: list[str]) -> Pulse:
        """Send one heartbeat; it keeps the messages of those tags from being redelivered."""
        answer: bytes = self._beat(BeatCall(worker, incarnation, json.dumps(figures), tags))
        return answer.decode()  # type: ignore[return-value]

    def is_connected(self, client_name: str) -> bool:
        """Whether any connection has that name. Absence proves death within milliseconds; presence proves nothing."""
        return client_list(self._client).names[client_name] > 0

    def take_back(
        self, worker: str, incarnation: str, *, keep: Container[str] = (), max_deaths: int | None = None
    ) -> int:
        """Requeue the messages that an incarnation held, except the tags to `keep`. Return their number.

        Each goes to the front of its lane, or of the shared lane if the worker is out of service. `max_deaths` as in
        `RequeueRequest`: None if the worker did not die over them; if it did, tasks that had succeeded are ended
        instead.
        """
        held = [message for message in self._held(worker, incarnation) if message.tag not in keep]
        if max_deaths is not None:
            done = set(self._results.finish(held))
            held = [message for message in held if message.task_id not in done]
        if not held:
            return 0
        # Each goes before those that wait: the first that was taken is requeued last, and is the first again.
        held = sorted(held, key=attrgetter("claimed_at"))[::-1]
        requests = [
            RequeueRequest(
                message.tag, incarnation, message.task_id, lane, message.level,
                why=f"{worker} ({incarnation}) ended", max_deaths=max_deaths,
            )
            for message, lane in zip(held, self._return_lanes(worker, held), strict=True)
        ]  # fmt: skip
        return sum(outcome == "moved" for outcome in self._requeues.apply(requests))

    def _return_lanes(self, worker: str, held: Sequence[HeldMessage]) -> list[str]:
        cordon: Any = self._client.hget(self._keys.cordons, worker)
        if cordon is None or codec.cordon_in_force(cordon, self.now()) is None:
            return [message.lane for message in held]
        return_lanes = ReturnLanes(self._client, self._keys, self._queues)
        values: Any = self._client.hmget(self._keys.unacked, [message.tag for message in held])
        return [
            return_lanes.lane(message.lane, needs_gpu=unacked is not None and requires_gpu(unacked.text))
            for message, unacked in zip(held, map(read_unacked, values), strict=True)
        ]

    def _held(self, worker: str, incarnation: str) -> list[HeldMessage]:
        return [
            held
            for tag, record in self._client.hscan_iter(self._keys.held, count=1000)
            if (held := read_held(tag, record)) is not None and (held.worker, held.incarnation) == (worker, incarnation)
        ]


@dataclass(frozen=True)
class CordonCall(Call):
    SCRIPT: ClassVar = "cordon"
    KEYS: ClassVar = ("cordons", "bells", "lease", "journal")

    worker: str
    record: str
    term: str
    note: str
    length: int
    over: Sequence[str]


class Cordons:
    """Cordons of one fleet. Each change checks the present state and writes in one step, for two operators at once."""

    def __init__(self, client: "Redis", keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = Script(client, keys, CordonCall)

    def get(self, worker: str) -> "Cordon | None":
        """The cordon of a worker; None while it is in service."""
        text = self._client.hget(self._keys.cordons, worker)
        return None if text is None else codec.read_cordon(text) or codec.BROKEN_CORDON

    def all(self, now: float) -> list[str]:
        """The workers with a cordon in force at that time (seconds, server's clock), registered or not."""
        found: Any = self._client.hgetall(self._keys.cordons)
        return [text_of(worker) for worker, text in found.items() if codec.cordon_in_force(text, now) is not None]

    def put(
        self,
        worker: str,
        cordon: "Cordon | None",
        over: "Iterable[WorkerStatus | None]",
        *,
        term: str = "",
        note: "JournalNote | None" = None,
    ) -> bool:
        """Write a cordon (None lifts it) if the present state is one of `over`, where None means in service.

        `note` goes to the journal in the same step. Raises LeaseLost on a stale term.
        """
        from .journal import LENGTH, encoded

        states = [state.value if state else "" for state in over]
        record = cordon.model_dump_json() if cordon else ""
        with fenced():
            text = "" if note is None else encoded(note)
            return bool(self._script(CordonCall(worker, record, term, text, LENGTH, states)))


@dataclass(frozen=True)
class FenceCall(Call):
    SCRIPT: ClassVar = "fence"
    KEYS: ClassVar = ("incarnations", "lease")

    worker: str
    incarnation: str
    term: str


class ClientConnections:
    """Evidence of death: connections, processes, and the means to end both."""

    def __init__(self, client: "Redis", keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._fence = Script(client, keys, FenceCall)

    def connected(self) -> ClientList:
        """The connections of the server now."""
        return client_list(self._client)

    def process_is_gone(self, host: str, pid: int) -> bool:
        """Whether a process of this machine has ended; False where it runs on another one, or is not known."""
        if host != socket.gethostname() or not 0 < pid < 2**31:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # another user's process: it exists
        return False

    def kill(self, client_name: str) -> int:
        """Close every connection of that name. Return their number."""
        if not client_name:
            return 0  # CLIENT LIST gives unnamed connections the name ""
        ids = [found.connection_id for found in client_list(self._client).named() if found.name == client_name]
        pipe = self._client.pipeline(transaction=False)
        for number in ids:
            pipe.client_kill_filter(_id=str(number))
        return sum(map(int, pipe.execute()))

    def fence(self, worker: str, incarnation: str, *, term: str = "") -> str:
        """Fence the worker until it registers again. Return "" on success, else the incarnation that acts now."""
        answer: bytes = self._fence(FenceCall(worker, incarnation, term))
        return text_of(answer)

    def attempts(self, task_ids: Iterable[str]) -> dict[str, int]:
        """Number of workers that died over each of these tasks; tasks without a death are left out."""
        ids = list(task_ids)
        found: Any = self._client.hmget(self._keys.attempts, ids) if ids else []
        counts = {task_id: whole_number(count) for task_id, count in zip(ids, found, strict=True) if count}
        return {task_id: count for task_id, count in counts.items() if count}
