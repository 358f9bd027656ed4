"""The ledger: every task from submit until it ends, and the figures that its end adds to.

An open task has a record without an expiry; the record of an ended one is kept for the retention time and then dropped
by Redis itself. Nothing here ever scans.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from morag_queue.core.estimate import estimate, log_error
from morag_queue.core.failure import Blame, RecoveryPolicy
from morag_queue.core.histogram import bucket
from morag_queue.core.model import Capability, ContentType, HeldMessage, QueueType, Requires

from . import scripts
from .codec import read_record, write_held
from .contract import OutgoingMessage
from .journal import LENGTH as JOURNAL_LENGTH
from .keys import HOUR_TTL, MINUTE_TTL, Keys

BATCH = 250
"""Messages a call of the submit script: about 1 ms of the server's time."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task ended on a worker. Times in seconds; None where not known."""

    tag: str
    task_id: str
    worker: str
    queue: str
    outcome: str
    wait_seconds: float | None
    run_seconds: float | None
    record: dict[str, Any]
    blame: Blame = Blame.NONE


class Ledger:
    """Opens and closes tasks, atomically with their messages."""

    def __init__(
        self, client: Redis, keys: Keys, retention_seconds: float, recovery: RecoveryPolicy | None = None
    ) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._recovery = recovery or RecoveryPolicy()
        self._submit = scripts.script(client, "submit")
        self._settle = scripts.script(client, "settle")

    def submit(self, messages: Sequence[OutgoingMessage]) -> list[bool]:
        """Queues up to `BATCH` messages in one step. False for an id that is still open: that one was not queued."""
        now = time.time()
        keys = [self._keys.lanes, self._keys.minute(now), self._keys.hour(now)]
        arguments: list[str | int] = [MINUTE_TTL, HOUR_TTL]
        for message in messages:
            keys += (self._keys.task(message.task_id), self._keys.list(message.lane, message.level))
            arguments += (message.text, message.record, message.queue, message.lane if message.is_worker_lane else "")
        return [bool(answer) for answer in self._submit(keys=keys, args=arguments)]

    def settle(self, ending: TaskEnd) -> bool:
        """Ends one task. False when the message was taken from this worker meanwhile: then nothing is counted."""
        now, k = time.time(), self._keys
        record = json.dumps({**ending.record, "ended_at": round(now, 3)})
        keys = [
            k.unacked, k.unacked_index, k.held, k.task(ending.task_id), k.totals, k.minute(now), k.hour(now),
            k.attempts, k.cordons, k.journal, k.dead, k.graves, k.figures, k.surprises, k.workers,
        ]  # fmt: skip
        arguments = [
            ending.tag, ending.outcome, ending.worker, ending.queue, record, self._retention,
            *_timed(ending.wait_seconds), *_timed(ending.run_seconds), MINUTE_TTL, HOUR_TTL, ending.task_id,
            ending.blame, self._recovery.breaker_failures, self._recovery.breaker_seconds, JOURNAL_LENGTH,
            *_lesson(ending), *QueueType,
        ]  # fmt: skip
        return bool(self._settle(keys=keys, args=arguments))

    def hold(self, held: HeldMessage) -> None:
        """Writes who has a message that was not taken by the claim script."""
        self._client.hset(self._keys.held, held.tag, write_held(held))

    def records(self, task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The records of those tasks that are known: open ones, and ended ones within the retention time."""
        ids = list(task_ids)
        if not ids:
            return {}
        found: Any = self._client.mget([self._keys.task(task_id) for task_id in ids])
        records = map(read_record, found)
        return {task_id: dict(one.fields) for task_id, one in zip(ids, records, strict=True) if one is not None}


def _lesson(ending: TaskEnd) -> tuple[str, str, str]:
    """What a run teaches of, and how much it surprised if it was on a CPU, and if on a GPU; '' where nothing.

    The script knows which kind of worker it was. What the headers say may be anybody's: only known words count.
    """
    kind, needs, minutes = (ending.record.get(name) for name in ("content_type", "requires", "estimated_minutes"))
    if ending.run_seconds is None or kind not in _CONTENT_TYPES or needs not in _REQUIRES:
        return "", "", ""
    predicted = float(minutes) if isinstance(minutes, int | float) else 0.0
    measured = ending.run_seconds / 60
    on_cpu = log_error(measured, estimate(predicted, _REQUIRES[needs], Capability.CPU))
    on_gpu = log_error(measured, estimate(predicted, _REQUIRES[needs], Capability.GPU))
    return f"{kind}|{needs}", "" if on_cpu is None else repr(on_cpu), "" if on_gpu is None else repr(on_gpu)


_CONTENT_TYPES = {one.value for one in ContentType}
_REQUIRES = {one.value: one for one in Requires}


def _timed(seconds: float | None) -> tuple[int | str, int | str]:
    """Milliseconds and histogram bucket, as the settle script takes them."""
    return ("", "") if seconds is None else (round(seconds * 1000), bucket(seconds))
