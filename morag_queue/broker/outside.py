"""Ends of tasks that somebody else tells: a service, or Celery's events. A worker with the agent writes them itself."""

import json
import time
from dataclasses import dataclass

from redis import Redis

from morag_queue.core.figures import bucket

from . import scripts
from .keys import HOUR_TTL, MINUTE_TTL, Keys


@dataclass(frozen=True, slots=True)
class Told:
    """How a task ended, and where, as far as it is known. Times in seconds."""

    task_id: str
    outcome: str
    worker: str = ""
    wait_seconds: float | None = None
    run_seconds: float | None = None


class Outside:
    """Closes entries of one fleet's ledger."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._script = scripts.script(client, "outside")

    def end(self, told: Told, seen: str) -> bool:
        """Ends an open entry that was read as `seen`. False where it is another one meanwhile, or not open."""
        record = json.loads(seen)
        if record.get("state") != "queued":
            return False
        now, k = time.time(), self._keys
        ended = record | {
            "state": told.outcome, "worker": told.worker, "ended_at": round(now, 3), "started_at": None,
            "wait_seconds": told.wait_seconds, "run_seconds": told.run_seconds, "error": "",
        }  # fmt: skip
        keys = [k.task(told.task_id), k.totals, k.minute(now), k.hour(now), k.figures]
        arguments: list[str | int] = [
            seen, json.dumps(ended), told.outcome, told.worker, record["queue"], self._retention,
            *_timed(told.wait_seconds), *_timed(told.run_seconds), MINUTE_TTL, HOUR_TTL,
        ]  # fmt: skip
        return bool(self._script(keys=keys, args=arguments))


def _timed(seconds: float | None) -> tuple[int | str, int | str]:
    """Milliseconds and histogram bucket, as the script takes them."""
    return ("", "") if seconds is None else (round(seconds * 1000), bucket(seconds))
