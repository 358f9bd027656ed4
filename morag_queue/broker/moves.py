"""Messages from lane to lane, inside Redis: no payload travels through the client."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import QueueType
from morag_queue.core.plan import MoveTask
from morag_queue.ports import Moved, TaskMove

from . import scripts
from .client import fenced
from .keys import Keys
from .search import Search

CHUNK = 250
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
        self._search = Search(client, keys)

    def lane(
        self, source: str, target: str, level: int, count: int, *, term: str = "", keeps_gpu: bool = False
    ) -> Moved:
        """Moves up to `count` of the oldest messages of one lane at one level; order and level are kept.

        Safe to run again after it was cut off anywhere. What arrives in the lane meanwhile stays there. `keeps_gpu`
        leaves behind what needs a GPU. Raises LeaseLost on a stale term.
        """
        keys = [self._keys.list(source, level), self._keys.list(target, level), self._keys.lease, self._keys.lanes]
        moved = left = need_gpu = 0  # what is left stays at the end where the oldest are: the next burst passes it over
        while moved + left < count:
            calls = min(-(-(count - moved - left) // CHUNK), _PIPELINED if left == 0 else 1)
            pipe = self._client.pipeline(transaction=False)
            asked = 0
            for _ in range(calls):
                size = min(CHUNK, count - moved - left - asked)
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
        return Moved(moved, left - need_gpu, need_gpu)

    def tasks(self, steps: Sequence[MoveTask], unsafe: Collection[QueueType] = (), *, term: str = "") -> list[TaskMove]:
        """Moves chosen messages, each in one atomic step and in this order; safe to run again.

        `unsafe` are the queues that a worker without a GPU reads: what needs a GPU stays out of their lanes. Raises
        LeaseLost on a stale term.
        """
        outcomes: list[TaskMove] = []
        for start in range(0, len(steps), CHUNK):
            burst = steps[start : start + CHUNK]
            pipe = self._client.pipeline(transaction=False)
            for step in burst:
                self._one(step, unsafe, term, "", pipe)
            with fenced():
                answers: list[bytes] = pipe.execute()
                outcomes += (
                    self._deep(step, unsafe, term) if answer == b"deep" else TaskMove(answer.decode())
                    for step, answer in zip(burst, answers, strict=True)
                )
        return outcomes

    def _deep(self, step: MoveTask, unsafe: Collection[QueueType], term: str) -> TaskMove:
        """Looks for it in the middle of its list, a window at a time."""
        length = self._client.llen(self._keys.list(step.source, step.level))
        found = self._search.by_beginning(step.task_id, [(step.source, step.level, length)], whole=True, limit=1)
        if not found:
            return TaskMove.GONE
        answer: bytes = self._one(step, unsafe, term, found[0].raw, None)
        return TaskMove(answer.decode())

    def _one(self, step: MoveTask, unsafe: Collection[QueueType], term: str, text: str | bytes, client: Any) -> Any:
        k = self._keys
        keys = [
            k.list(step.source, step.level), k.list(step.target, step.to_level), k.lease, k.task(step.task_id), k.lanes,
        ]  # fmt: skip
        arguments: list[str | int | bytes] = [
            step.task_id, json.dumps(step.task_id), step.target, step.level, step.to_level,
            int(lanes.queue_of(step.target) in unsafe), term, _NEAR, text,
        ]  # fmt: skip
        return self._move_task(keys=keys, args=arguments, client=client)
