"""Poll a fleet: one pipeline, or two while messages wait; much cheaper than a snapshot."""

import math
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from morag_queue.core.fleet_poll import FleetPoll, LastBeat
from morag_queue.core.levels import LEVELS
from morag_queue.core.model import QueueType

from .client_list import OURS, parsed, request
from .codec import cordon_in_force, read_heartbeat, text_of
from .keys import Keys


class FleetPoller:
    """Polls one fleet. The cost depends on the number of workers and connections, not on the backlog.

    It takes six commands while no message waits in the shared lanes. A second round trip reads what waits there where
    nothing did at the poll before.
    """

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._lists = [keys.list(queue.value, level) for queue in QueueType for level in LEVELS]
        self._something_waits = True

    def poll(self) -> FleetPoll:
        """Poll now. Raises redis-py's errors. If the ACL forbids CLIENT LIST or INFO, their data is missing."""
        k = self._keys
        pipe = self._client.pipeline(transaction=False)
        request(pipe)
        pipe.info("server")
        for key in (k.incarnations, k.beats, k.cordons):
            pipe.hgetall(key)
        if self._something_waits:
            self._ask_what_waits(pipe)
        else:
            pipe.exists(*self._lists)
        clients, info, acting, beats, cordons, *lanes = pipe.execute(raise_on_error=False)
        for answer in (acting, beats, cordons):
            if isinstance(answer, Exception):
                raise answer
        if lanes == [0]:
            lanes = []
        elif len(lanes) == 1:
            lanes = self._ask_what_waits(self._client.pipeline(transaction=False)).execute(raise_on_error=False)
        waiting = self._waiting(*lanes) if lanes else {}
        self._something_waits = any(length for length in lanes[1:] if isinstance(length, int))
        now = self._now(info)
        return FleetPoll(
            at=now,
            up_since=now - (info["uptime_in_seconds"] if isinstance(info, dict) else math.inf),
            names=_names(clients),
            acting={text_of(worker): text_of(run) for worker, run in acting.items()},
            beats={text_of(worker): beat for worker, text in beats.items() if (beat := _last_beat(text)) is not None},
            cordons={
                text_of(worker): cordon.state.value
                for worker, text in cordons.items()
                if (cordon := cordon_in_force(text, now)) is not None
            },
            waiting=waiting,
        )

    def _now(self, info: Any) -> float:
        """The server's clock: from INFO, which spares a command, or where the ACL forbids that from TIME."""
        if isinstance(info, dict) and "server_time_usec" in info:
            return float(info["server_time_usec"]) / 1e6
        seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def _ask_what_waits(self, pipe: Any) -> Any:
        pipe.smembers(self._keys.paused)
        for key in self._lists:
            pipe.llen(key)
        return pipe

    def _waiting(self, paused: Any, *lengths: Any) -> dict[str, int]:
        """Count messages in each shared lane that is not paused. A key of another type counts as empty."""
        if isinstance(paused, Exception):
            raise paused
        waiting = {}
        for index, queue in enumerate(QueueType):
            by_level = lengths[index * len(LEVELS) : (index + 1) * len(LEVELS)]
            count = sum(length for length in by_level if isinstance(length, int))
            if count and queue.value.encode() not in paused:
                waiting[queue.value] = count
        return waiting


def _names(answer: Any) -> frozenset[str] | None:
    if isinstance(answer, NoPermissionError | ResponseError):
        return None
    if isinstance(answer, Exception):
        raise answer
    return frozenset(name for name in parsed(answer).names if name.startswith(OURS))


def _last_beat(text: bytes) -> LastBeat | None:
    beat = read_heartbeat(text)
    return None if beat is None else LastBeat(beat.at, beat.active + beat.reserved, beat.stopped)
