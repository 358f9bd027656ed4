"""One cheap look at a fleet: a pipeline whose answer is read without building anything that a turn would need."""

import json
import re
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from morag_queue.core.fleet_poll import FleetPoll, LastBeat
from morag_queue.core.levels import LEVELS
from morag_queue.core.model import QueueType

from .client_list import OURS, parsed, request
from .keys import Keys

_UPTIME = re.compile(rb"uptime_in_seconds:(\d+)")


class FleetPoller:
    """Looks at one fleet. A look costs by the number of workers and connections, never by what waits."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def look(self) -> FleetPoll:
        """Raises redis-py's errors. A user who may not read CLIENT LIST or INFO sees the rest."""
        k = self._keys
        pipe = self._client.pipeline(transaction=False)
        request(pipe)
        pipe.execute_command("INFO", "server", NEVER_DECODE=True)
        pipe.time()
        for key in (k.incarnations, k.beats, k.cordons):
            pipe.hgetall(key)
        pipe.smembers(k.paused)
        for queue in QueueType:
            for level in LEVELS:
                pipe.llen(k.list(queue.value, level))
        clients, info, time, acting, beats, cordons, paused, *lengths = pipe.execute(raise_on_error=False)
        for answer in (time, acting, beats, cordons, paused):
            if isinstance(answer, Exception):
                raise answer
        now = float(time[0]) + float(time[1]) / 1e6
        return FleetPoll(
            at=now,
            up_since=now - _uptime(info),
            names=_names(clients),
            acting={worker.decode(): run.decode() for worker, run in acting.items()},
            beats={worker.decode(): _last_beat(text) for worker, text in beats.items()},
            cordons={worker.decode(): state for worker, text in cordons.items() if (state := _state(text, now))},
            waiting=_waiting(lengths, {name.decode() for name in paused}),
        )


def _names(answer: Any) -> frozenset[str] | None:
    if isinstance(answer, NoPermissionError | ResponseError):
        return None
    if isinstance(answer, Exception):
        raise answer
    return frozenset(name for name in parsed(answer).names if name.startswith(OURS))


def _uptime(answer: Any) -> float:
    """Seconds; as if for ever where it may not be read."""
    text = answer if isinstance(answer, bytes) else str(answer).encode()
    found = _UPTIME.search(text)
    return float(found[1]) if found else float("inf")


def _last_beat(text: bytes) -> LastBeat:
    beat = json.loads(text)
    busy = int(beat.get("active", 0)) + int(beat.get("reserved", 0))
    return LastBeat(float(beat["at"]), busy, bool(beat.get("stopped")))


def _state(text: bytes, now: float) -> str:
    cordon = json.loads(text)
    until = cordon.get("until")
    return "" if until is not None and until <= now else str(cordon["state"])


def _waiting(lengths: list[Any], paused: set[str]) -> dict[str, int]:
    """How many wait in each shared lane that is not paused; a key of another type holds nothing."""
    found = {}
    for n, queue in enumerate(QueueType):
        part = lengths[n * len(LEVELS) : (n + 1) * len(LEVELS)]
        count = sum(one for one in part if isinstance(one, int))
        if count and queue.value not in paused:
            found[queue.value] = count
    return found
