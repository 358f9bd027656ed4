"""Poll a fleet: one pipeline, much cheaper than a snapshot."""

import re
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from morag_queue.core.fleet_poll import FleetPoll, LastBeat
from morag_queue.core.levels import LEVELS
from morag_queue.core.model import Heartbeat, QueueType

from .client_list import OURS, parsed, request
from .codec import cordon_in_force
from .keys import Keys

_UPTIME = re.compile(rb"uptime_in_seconds:(\d+)")


class FleetPoller:
    """Polls one fleet. The cost depends on the number of workers and connections, not on the backlog."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def poll(self) -> FleetPoll:
        """Poll now. Raises redis-py's errors. If the ACL forbids CLIENT LIST or INFO, their data is missing."""
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
            cordons={
                worker.decode(): cordon.state.value
                for worker, text in cordons.items()
                if (cordon := cordon_in_force(text, now)) is not None
            },
            waiting=_waiting(lengths, {name.decode() for name in paused}),
        )


def _names(answer: Any) -> frozenset[str] | None:
    if isinstance(answer, NoPermissionError | ResponseError):
        return None
    if isinstance(answer, Exception):
        raise answer
    return frozenset(name for name in parsed(answer).names if name.startswith(OURS))


def _uptime(answer: Any) -> float:
    """Return seconds; infinity if the ACL forbids INFO."""
    text = answer if isinstance(answer, bytes) else str(answer).encode()
    found = _UPTIME.search(text)
    return float(found[1]) if found else float("inf")


def _last_beat(text: bytes) -> LastBeat:
    beat = Heartbeat.model_validate_json(text)
    return LastBeat(beat.at, beat.active + beat.reserved, beat.stopped)


def _waiting(lengths: list[Any], paused: set[str]) -> dict[str, int]:
    """Count messages in each shared lane that is not paused. A key of another type counts as empty."""
    waiting = {}
    for index, queue in enumerate(QueueType):
        by_level = lengths[index * len(LEVELS) : (index + 1) * len(LEVELS)]
        count = sum(length for length in by_level if isinstance(length, int))
        if count and queue.value not in paused:
            waiting[queue.value] = count
    return waiting
