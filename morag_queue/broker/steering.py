"""Waiting tasks changed by hand: out of their lane for good, or into another place in a new form."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis

from . import scripts
from .keys import HOUR_TTL, MINUTE_TTL, Keys

CHUNK = 20
"""Tasks a call. Redis goes through the list to take them out: from the middle of 200,000, that takes 10 to 30 ms."""


@dataclass(frozen=True, slots=True)
class Change:
    """One message, as it was read (`raw`, at `depth` of its list, 1 is the next), and what becomes of it.

    `text` None is cancelled. `record` is the ledger's new one (JSON), '' leaves it as it is.
    """

    task_id: str
    lane: str
    level: int
    depth: int
    raw: bytes | str
    text: str | None
    record: str
    to_lane: str = ""
    to_level: int = 0
    queue: str = ""
    to_worker_lane: bool = False


class Steering:
    """Changes on one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._script = scripts.script(client, "steer")

    def apply(self, changes: Sequence[Change]) -> list[bool]:
        """What was changed, in the order given; False for one that was no longer where it had been read."""
        by_list: dict[str, list[int]] = defaultdict(list)
        for n, change in enumerate(changes):
            by_list[self._keys.list(change.lane, change.level)].append(n)
        done = [False] * len(changes)
        for key, numbers in by_list.items():
            # The next to run first, so that their order is kept where they go; the others move up meanwhile.
            numbers.sort(key=lambda n: changes[n].depth)
            gone = 0
            for start in range(0, len(numbers), CHUNK):
                part = numbers[start : start + CHUNK]
                answers = self._call(key, [changes[n] for n in part], gone)
                gone += sum(answers)
                for n, answer in zip(part, answers, strict=True):
                    done[n] = bool(answer)
        return done

    def _call(self, key: str, changes: Sequence[Change], gone: int) -> list[int]:
        k, now = self._keys, time.time()
        keys = [key, k.lanes, k.totals, k.minute(now), k.hour(now)]
        arguments: list[str | bytes | int] = [self._retention, MINUTE_TTL, HOUR_TTL]
        for one in changes:
            keys += (key if one.text is None else k.list(one.to_lane, one.to_level), k.task(one.task_id))
            lane = one.to_lane if one.to_worker_lane else ""
            arguments += (max(one.depth - gone, 1), one.raw, one.text or "", one.record, one.queue, lane)
        answer: list[int] = self._script(keys=keys, args=arguments)
        return answer
