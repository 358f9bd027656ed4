"""The registry: who works in which name, their heartbeats, and the proof that one is dead."""

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal
from uuid import uuid4

from redis import Redis

from morag_queue.core.model import Heartbeat, WorkerInfo

from . import scripts
from .keys import Keys

Pulse = Literal["ok", "fenced", "unknown"]


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Who acts in a worker's name at present."""

    incarnation: str
    info: WorkerInfo | None
    beat: Heartbeat | None


class Registry:
    """Names, heartbeats and hands, for the agent and for failover."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._register = scripts.script(client, "register")
        self._beat = scripts.script(client, "beat")
        self._takeback = scripts.script(client, "takeback")

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
        keys = [self._keys.beats, self._keys.incarnations, self._keys.workers, self._keys.unacked_index]
        answer: bytes = self._beat(keys=keys, args=[worker, incarnation, json.dumps(figures), *tags])
        return answer.decode()  # type: ignore[return-value]

    def is_connected(self, client_name: str) -> bool:
        """Whether any connection bears that name. Absence proves death within milliseconds; presence proves nothing."""
        return any(one["name"] == client_name for one in self._client.client_list())

    def take_back(self, worker: str, incarnation: str, *, keep: Container[str] = (), after_death: bool = True) -> int:
        """Puts what an incarnation held first in the lanes it came from, but for the tags to `keep`.

        `after_death` counts it as an attempt of each task. Returns how many messages.
        """
        held = [
            (tag, lane, level, ms)
            for tag, record in ((tag.decode(), record) for tag, record in self._all_held())
            for owner, run, _, lane, level, ms in [json.loads(record)]
            if (owner, run) == (worker, incarnation) and tag not in keep
        ]
        moved = 0
        k = self._keys
        # Each goes before what waits: the one that was taken first goes last, and is the first again.
        for tag, lane, level, _ in sorted(held, key=itemgetter(3), reverse=True):
            answer = self._takeback(
                keys=[k.unacked, k.unacked_index, k.held, k.attempts, k.list(lane, level)],
                args=[tag, incarnation, str(uuid4()), lane, int(after_death)],
            )
            moved += answer == b"moved"
        return moved

    def _all_held(self) -> Iterator[tuple[bytes, bytes]]:
        found: Iterator[tuple[bytes, bytes]] = self._client.hscan_iter(self._keys.held, count=1000)
        return found
