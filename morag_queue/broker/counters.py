"""Figures of all time, which only grow: what metrics are made of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis import Redis

from morag_queue.core.estimate import Correction, learn_many
from morag_queue.core.model import ContentType, QueueType, Requires

from . import scripts
from .connection import fenced
from .keys import Keys

if TYPE_CHECKING:
    from morag_queue.core.routing.score_table import Corrections


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """Of one queue: how many ended in each way, and histograms by `core.figures.bucket`, with their sums in seconds."""

    ended: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[int, int] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    wait_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetCounters:
    """`unowned` are messages in `unacked` that no worker with the agent has; `dead` are tasks not run again unasked."""

    queues: Mapping[QueueType, QueueCounters]
    unowned: int
    dead: int


def fleet_counters(client: Redis, keys: Keys) -> FleetCounters:
    """In one round trip; costs by the number of histogram buckets, not of tasks."""
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(keys.figures)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    pipe.hlen(keys.dead)
    figures, unacked, held, dead = pipe.execute()
    return FleetCounters(_by_queue(figures), max(unacked - held, 0), dead)


def _by_queue(figures: Mapping[bytes, bytes]) -> Mapping[QueueType, QueueCounters]:
    found: dict[str, dict[str, Any]] = {queue.value: {"ended": {}, "wait": {}, "run": {}} for queue in QueueType}
    for name, count in figures.items():
        queue, figure, *bucket = name.decode().split("|")
        if queue not in found:
            continue
        if bucket:
            found[queue][figure][int(bucket[0])] = int(count)
        elif figure.endswith("_ms"):
            found[queue][figure] = int(count) / 1000
        else:
            found[queue]["ended"][figure] = int(count)
    return {
        queue: QueueCounters(one["ended"], one["wait"], one["run"], one.get("wait_ms", 0.0), one.get("run_ms", 0.0))
        for queue in QueueType
        for one in [found[queue.value]]
    }


class CorrectionStore:
    """Corrections of one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = scripts.script(client, "learn")

    def fold(self, *, term: str = "") -> tuple[int, int]:
        """Learns from what has been measured since the last time: how many runs, and of how many kinds of work.

        What ends meanwhile is learned from the next time. Raises LeaseLost on a stale term.
        """
        found: Any = self._client.hgetall(self._keys.surprises)
        sums = {name.decode(): float(value) for name, value in found.items()}
        known = dict(corrections(self._client.get(self._keys.corrections) or b""))
        runs, kinds, taken = 0, 0, list[str | int]()
        for name, count in sums.items():
            field, _, figure = name.rpartition("|")
            kind = _kind(field)
            if figure != "n" or not count or kind is None:
                continue
            surprise = sums.get(f"{field}|x", 0.0)
            known[kind] = learn_many(known.get(kind, Correction()), int(count), surprise)
            runs, kinds = runs + int(count), kinds + 1
            taken += (field, int(count), repr(surprise))
        if runs:
            keys = [self._keys.surprises, self._keys.corrections, self._keys.lease]
            with fenced():
                self._script(keys=keys, args=[_text(known), term, *taken])
        return runs, kinds


def corrections(text: bytes | str) -> "Corrections":
    """As `fold` has written them; of another version's nothing, as if nothing had been learned."""
    try:
        fields = json.loads(text) if text else {}
        read = {_kind(field): Correction(n=n, m=m) for field, (n, m) in fields.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return {kind: one for kind, one in read.items() if kind is not None}


def _text(known: "Corrections") -> str:
    return json.dumps(
        {f"{kind}|{needs}|{int(on_gpu)}": [one.n, round(one.m, 6)] for (kind, needs, on_gpu), one in known.items()}
    )


def _kind(field: str) -> tuple[ContentType, Requires, bool] | None:
    try:
        content_type, requires, on_gpu = field.split("|")
        return ContentType(content_type), Requires(requires), on_gpu == "1"
    except ValueError:
        return None
