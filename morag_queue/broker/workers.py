"""The registry: who works in which name, their heartbeats, and the proof that one is dead."""

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import Cordon, Heartbeat, HeldMessage, WorkerInfo, WorkerStatus

from . import scripts
from .codec import read_held
from .connection import fenced
from .keys import Keys
from .ledger import Ledger
from .recovery import RequeueRequest, Requeues
from .results import Results

Pulse = Literal["ok", "fenced", "unknown", "draining"]


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Who acts in a worker's name at present."""

    incarnation: str
    info: WorkerInfo | None
    beat: Heartbeat | None


class Registry:
    """Names, heartbeats and hands, for the agent and for failover."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys = client, keys
        self._register = scripts.script(client, "register")
        self._beat = scripts.script(client, "beat")
        self._results = Results(client, keys, Ledger(client, keys, retention_seconds))
        self._takebacks = Requeues(client, keys, retention_seconds)

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def acting(self, worker: str) -> Predecessor | None:
        """Who acts in this name; None for nobody."""
        pipe = self._client.pipeline(transaction=False)
        for key in (self._keys.incarnations, self._keys.workers, self._keys.beats):
            pipe.hget(key, worker)
        incarnation, info, beat = pipe.execute()
        if incarnation is None:
            return None
        return Predecessor(
            incarnation.decode(),
            WorkerInfo.model_validate_json(info) if info else None,
            Heartbeat.model_validate_json(beat) if beat else None,
        )

    def register(self, info: WorkerInfo, replaces: str = "") -> str:
        """Takes the name. Returns '' or the incarnation, not `replaces`, that holds it."""
        keys = [self._keys.workers, self._keys.incarnations, self._keys.beats]
        answer: bytes = self._register(
            keys=keys, args=[info.worker, info.incarnation, info.model_dump_json(), replaces]
        )
        return answer.decode()

    def beat(self, worker: str, incarnation: str, figures: dict[str, Any], tags: list[str]) -> Pulse:
        """One heartbeat; keeps the messages of those tags from being handed out again."""
        k = self._keys
        keys = [k.beats, k.incarnations, k.workers, k.unacked_index, k.cordons]
        answer: bytes = self._beat(keys=keys, args=[worker, incarnation, json.dumps(figures), *tags])
        return answer.decode()  # type: ignore[return-value]

    def is_connected(self, client_name: str) -> bool:
        """Whether any connection bears that name. Absence proves death within milliseconds; presence proves nothing."""
        return any(one["name"] == client_name for one in self._client.client_list())

    def take_back(
        self, worker: str, incarnation: str, *, keep: Container[str] = (), max_deaths: int | None = None
    ) -> int:
        """Puts what an incarnation held first in the lanes it came from, but for the tags to `keep`.

        Where the worker takes nothing any more, it goes to the shared lanes. `max_deaths` as of `RequeueRequest`: None
        where the worker did not die over it; where it did, what had succeeded is ended instead.
        Returns the number of messages.
        """
        held = [one for one in self._held(worker, incarnation) if one.tag not in keep]
        if max_deaths is not None:
            done = set(self._results.finish(held))
            held = [one for one in held if one.task_id not in done]
        if not held:
            return 0
        out_of_service = self._client.hexists(self._keys.cordons, worker)
        # Each goes before what waits: the one that was taken first goes last, and is the first again.
        returns = [
            RequeueRequest(
                one.tag, incarnation, one.task_id, lanes.split(one.lane)[0] if out_of_service else one.lane, one.level,
                why=f"{worker} ({incarnation}) ended", max_deaths=max_deaths,
            )
            for one in sorted(held, key=attrgetter("claimed_at"))[::-1]
        ]  # fmt: skip
        return sum(outcome == "moved" for outcome in self._takebacks.apply(returns))

    def _held(self, worker: str, incarnation: str) -> list[HeldMessage]:
        """What an incarnation has in its hands."""
        return [
            held
            for tag, record in self._client.hscan_iter(self._keys.held, count=1000)
            if (held := read_held(tag, record)) is not None and (held.worker, held.incarnation) == (worker, incarnation)
        ]


class Cordons:
    """Each change looks at what is there and writes in one step: two operators may act at once."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = scripts.script(client, "cordon")

    def get(self, worker: str) -> Cordon | None:
        """The cordon of a worker; None where it is in service."""
        text = self._client.hget(self._keys.cordons, worker)
        return Cordon.model_validate_json(text) if text else None

    def put(self, worker: str, cordon: Cordon | None, over: Iterable[WorkerStatus | None], *, term: str = "") -> bool:
        """Writes a cordon (None lifts it) where the present state is one of `over`; None there is "in service".

        Raises LeaseLost on a stale term.
        """
        states = [state.value if state else "" for state in over]
        text = cordon.model_dump_json() if cordon else ""
        with fenced():
            return bool(self._script(keys=[self._keys.cordons, self._keys.lease], args=[worker, text, term, *states]))


OURS = "mq."
"""How the CLIENT LIST names of our commands and of workers with the agent begin."""


_NAME = re.compile(rb" name=(\S+)")


# Where a Celery worker waits for messages or for remote control.
_CONSUMES = re.compile(rb" (?:p?sub=[1-9]|cmd=(?:brpop|p?subscribe)\b)")


@dataclass(frozen=True, slots=True)
class ConnectedClients:
    """`names`: how many connections bear each name. `strangers`: those that look like workers without the agent."""

    names: Counter[str]
    strangers: int


class ClientConnections:
    """Connections of one server."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._fence = scripts.script(client, "fence")

    def connected(self) -> ConnectedClients:
        """Who is connected now. A killed process is out of the list within milliseconds, a stopped one stays in it."""
        # Not through redis-py's parser, which makes a mapping of thirty fields of each of maybe 60,000 lines.
        listed: bytes = self._client.execute_command("CLIENT", "LIST")
        lines = listed.splitlines()
        names = [match[1].decode() if (match := _NAME.search(line)) else "" for line in lines]
        return ConnectedClients(
            names=Counter(name for name in names if name),
            strangers=sum(
                not name.startswith(OURS) and _CONSUMES.search(line) is not None
                for name, line in zip(names, lines, strict=True)
            ),
        )

    def process_is_gone(self, host: str, pid: int) -> bool:
        """Whether a process of this machine has ended; False where it is on another one, or not known."""
        if host != socket.gethostname() or pid <= 0:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # someone else's: it is there
        return False

    def kill(self, client_name: str) -> int:
        """Closes every connection of that name. Returns how many there were."""
        if not client_name:
            return 0  # all that have no name would go
        ids = [one["id"] for one in self._client.client_list() if one["name"] == client_name]
        pipe = self._client.pipeline(transaction=False)
        for number in ids:
            pipe.client_kill_filter(_id=number)
        return sum(map(int, pipe.execute()))

    def fence(self, worker: str, incarnation: str, *, term: str = "") -> str:
        """Lets nobody act in that name until someone registers anew. Returns '' or who acts in it meanwhile."""
        keys = [self._keys.incarnations, self._keys.lease]
        answer: bytes = self._fence(keys=keys, args=[worker, incarnation, term])
        return answer.decode()

    def attempts(self, task_ids: Iterable[str]) -> dict[str, int]:
        """How many workers have died over each of these tasks; the others are not in the answer."""
        ids = list(task_ids)
        found = self._client.hmget(self._keys.attempts, ids) if ids else []
        return {one: int(count) for one, count in zip(ids, found, strict=True) if count}
