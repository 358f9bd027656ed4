"""Messages from lane to lane, inside Redis: no payload travels through the client."""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from morag_queue.core.plan import MoveTask

from . import scripts
from .connection import fenced
from .contract import MoveCounts, MoveOutcome
from .keys import HOUR_TTL, MINUTE_TTL, Keys
from .lane_search import LaneSearch

MOVE_CHUNK = 250
"""Messages a call: about 1 ms of the server's time, so that a worker's claim is never kept waiting for long."""


_PIPELINED = 16
"""Calls on their way at once: the server is never idle between two of them."""


_NEAR = 64
"""Messages of each end of a list that are looked at for a chosen one; a plan's own were at an end when it was made."""


class Moves:
    """Moves on one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._move = scripts.script(client, "move")
        self._move_task = scripts.script(client, "move_task")
        self._search = LaneSearch(client, keys)

    def lane(
        self, source: str, target: str, level: int, count: int, *, term: str = "", keeps_gpu: bool = False
    ) -> MoveCounts:
        """Moves up to `count` of the oldest messages of one lane at one level; order and level are kept.

        Safe to run again after it was cut off anywhere. What arrives in the lane meanwhile stays there. `keeps_gpu`
        leaves behind what needs a GPU. Raises LeaseLost on a stale term.
        """
        keys = [self._keys.list(source, level), self._keys.list(target, level), self._keys.lease, self._keys.lanes]
        moved = left = need_gpu = 0  # what is left stays at the end where the oldest are: the next burst passes it over
        while moved + left < count:
            calls = min(-(-(count - moved - left) // MOVE_CHUNK), _PIPELINED if left == 0 else 1)
            pipe = self._client.pipeline(transaction=False)
            asked = 0
            for _ in range(calls):
                size = min(MOVE_CHUNK, count - moved - left - asked)
                self._move(keys=keys, args=[size, source, target, left, term, int(keeps_gpu)], client=pipe)
                asked += size
            with fenced():
                answers = pipe.execute()
            moved += sum(answer[0] for answer in answers)
            # Each call of a burst meets again what the ones before it have left: who met the most has met all of it.
            _, met, met_gpu = max(answers, key=lambda answer: answer[1])
            left, need_gpu = left + met, need_gpu + met_gpu
            if sum(answer[0] + answer[1] for answer in answers) == 0:
                break
        return MoveCounts(moved, left - need_gpu, need_gpu)

    def tasks(self, steps: Sequence[MoveTask], *, term: str = "") -> list[MoveOutcome]:
        """Moves chosen messages, each in one atomic step and in this order; safe to run again.

        Raises LeaseLost on a stale term.
        """
        outcomes: list[MoveOutcome] = []
        for start in range(0, len(steps), MOVE_CHUNK):
            burst = steps[start : start + MOVE_CHUNK]
            pipe = self._client.pipeline(transaction=False)
            for step in burst:
                self._one(step, term, "", pipe)
            with fenced():
                answers: list[bytes] = pipe.execute()
                outcomes += (
                    self._deep(step, term) if answer == b"deep" else MoveOutcome(answer.decode())
                    for step, answer in zip(burst, answers, strict=True)
                )
        return outcomes

    def _deep(self, step: MoveTask, term: str) -> MoveOutcome:
        """Looks for it in the middle of its list, a window at a time."""
        length = self._client.llen(self._keys.list(step.source, step.level))
        found = self._search.by_beginning(step.task_id, [(step.source, step.level, length)], whole=True, limit=1)
        if not found:
            return MoveOutcome.GONE
        answer: bytes = self._one(step, term, found[0].raw, None)
        return MoveOutcome(answer.decode())

    def _one(self, step: MoveTask, term: str, text: str | bytes, client: Any) -> Any:
        k = self._keys
        keys = [
            k.list(step.source, step.level), k.list(step.target, step.to_level), k.lease, k.task(step.task_id), k.lanes,
        ]  # fmt: skip
        arguments: list[str | int | bytes] = [
            step.task_id, json.dumps(step.task_id), step.target, step.level, step.to_level,
            int(step.keeps_gpu), term, _NEAR, text,
        ]  # fmt: skip
        return self._move_task(keys=keys, args=arguments, client=client)


EDIT_CHUNK = 20
"""Tasks a call. Redis goes through the list to take them out: from the middle of 200,000, that takes 10 to 30 ms."""


@dataclass(frozen=True, slots=True)
class LaneEdit:
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


class LaneEdits:
    """Changes on one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._script = scripts.script(client, "steer")

    def apply(self, changes: Sequence[LaneEdit]) -> list[bool]:
        """What was changed, in the order given; False for one that was no longer where it had been read."""
        by_list: dict[str, list[int]] = defaultdict(list)
        for n, change in enumerate(changes):
            by_list[self._keys.list(change.lane, change.level)].append(n)
        done = [False] * len(changes)
        for key, numbers in by_list.items():
            # The next to run first, so that their order is kept where they go; the others move up meanwhile.
            numbers.sort(key=lambda n: changes[n].depth)
            gone = 0
            for start in range(0, len(numbers), EDIT_CHUNK):
                part = numbers[start : start + EDIT_CHUNK]
                answers = self._call(key, [changes[n] for n in part], gone)
                gone += sum(answers)
                for n, answer in zip(part, answers, strict=True):
                    done[n] = bool(answer)
        return done

    def _call(self, key: str, changes: Sequence[LaneEdit], gone: int) -> list[int]:
        k, now = self._keys, time.time()
        keys = [key, k.lanes, k.totals, k.minute(now), k.hour(now)]
        arguments: list[str | bytes | int] = [self._retention, MINUTE_TTL, HOUR_TTL]
        for one in changes:
            keys += (key if one.text is None else k.list(one.to_lane, one.to_level), k.task(one.task_id))
            lane = one.to_lane if one.to_worker_lane else ""
            arguments += (max(one.depth - gone, 1), one.raw, one.text or "", one.record, one.queue, lane)
        answer: list[int] = self._script(keys=keys, args=arguments)
        return answer
