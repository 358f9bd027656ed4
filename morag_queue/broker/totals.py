"""Figures of all time, which only grow: what metrics are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from morag_queue.core.model import QueueType

from .keys import Keys


@dataclass(frozen=True, slots=True)
class Grown:
    """Of one queue: how many ended in each way, and histograms by `core.figures.bucket`, with their sums in seconds."""

    ended: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[int, int] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    wait_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AllTime:
    """`unowned` are messages in `unacked` that no worker with the agent has; `dead` are tasks not run again unasked."""

    queues: Mapping[QueueType, Grown]
    unowned: int
    dead: int


def all_time(client: Redis, keys: Keys) -> AllTime:
    """In one round trip; costs by the number of histogram buckets, not of tasks."""
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(keys.figures)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    pipe.hlen(keys.dead)
    figures, unacked, held, dead = pipe.execute()
    return AllTime(_by_queue(figures), max(unacked - held, 0), dead)


def _by_queue(figures: Mapping[bytes, bytes]) -> Mapping[QueueType, Grown]:
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
        queue: Grown(one["ended"], one["wait"], one["run"], one.get("wait_ms", 0.0), one.get("run_ms", 0.0))
        for queue in QueueType
        for one in [found[queue.value]]
    }
