"""The registry: who works in which name, their heartbeats, and the proof that one is dead."""

import json
from collections.abc import Container
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import Heartbeat, Held, WorkerInfo

from . import scripts
from .keys import Keys
from .ledger import Ledger
from .results import Results
from .takeback import Return, TakeBacks

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
        self._takebacks = TakeBacks(client, keys, retention_seconds)

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

        Where the worker takes nothing any more, it goes to the shared lanes. `max_deaths` as of `Return`: None where
        the worker did not die over it; where it did, what had succeeded is ended instead. Returns how many messages.
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
            Return(
                one.tag, incarnation, one.task_id, lanes.split(one.lane)[0] if out_of_service else one.lane, one.level,
                why=f"{worker} ({incarnation}) ended", max_deaths=max_deaths,
            )
            for one in sorted(held, key=attrgetter("claimed_at"))[::-1]
        ]  # fmt: skip
        return sum(outcome == "moved" for outcome in self._takebacks.apply(returns))

    def _held(self, worker: str, incarnation: str) -> list[Held]:
        """What an incarnation has in its hands."""
        return [
            Held(tag=tag.decode(), worker=owner, incarnation=run, task_id=task_id, lane=lane, level=level,
                 claimed_at=ms / 1000)
            for tag, record in self._client.hscan_iter(self._keys.held, count=1000)
            for owner, run, task_id, lane, level, ms in [json.loads(record)]
            if (owner, run) == (worker, incarnation)
        ]  # fmt: skip
