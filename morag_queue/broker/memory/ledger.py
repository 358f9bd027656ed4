"""The ledger of a fleet in memory."""

import json
from collections.abc import Callable


class MemoryLedger:
    """The ledger's records as text, with the time when the record of an ended task expires; None while it is open."""

    def __init__(self, now: Callable[[], float], retention_seconds: float) -> None:
        self._now, self._retention = now, retention_seconds
        self._records: dict[str, tuple[str, float | None]] = {}

    def text(self, task_id: str) -> str | None:
        text, expires = self._records.get(task_id, (None, None))
        if expires is not None and expires <= self._now():
            del self._records[task_id]
            return None
        return text

    def is_open(self, task_id: str) -> bool:
        return self.text(task_id) is not None and self._records[task_id][1] is None

    def write(self, task_id: str, text: str) -> None:
        self._records[task_id] = text, None

    def update(self, task_id: str, **fields: object) -> None:
        """Change fields of an open record; an ended one stays as it is."""
        text = self.text(task_id)
        if text is not None and self.is_open(task_id):
            self._records[task_id] = json.dumps(json.loads(text) | fields), None

    def end(self, task_id: str, **fields: object) -> None:
        """Change fields of a record and let it expire."""
        text = self.text(task_id)
        if text is not None:
            self._records[task_id] = json.dumps(json.loads(text) | fields), self._now() + self._retention
