"""The ledger of a fleet in memory."""

from collections import deque
from collections.abc import Callable

from morag_queue.broker.codec import LedgerRecord, read_record


class MemoryLedger:
    """The ledger's records as text, with the time when the record of an ended task expires; None while it is open."""

    def __init__(self, now: Callable[[], float], retention_seconds: float) -> None:
        self._now, self._retention = now, retention_seconds
        self._records: dict[str, tuple[str, float | None]] = {}
        self._ended: deque[tuple[float, str]] = deque()

    def record(self, task_id: str) -> LedgerRecord | None:
        text, expires = self._records.get(task_id, (None, None))
        if expires is not None and expires <= self._now():
            del self._records[task_id]
            return None
        return read_record(text)

    def is_open(self, task_id: str) -> bool:
        return self.record(task_id) is not None and self._records[task_id][1] is None

    def write(self, task_id: str, text: str) -> None:
        self._records[task_id] = text, None

    def update(self, task_id: str, **fields: object) -> None:
        """Change fields of an open record; an ended one stays as it is."""
        record = self.record(task_id)
        if record is not None and self.is_open(task_id):
            self._records[task_id] = record.changed(**fields).encoded(), None

    def end(self, task_id: str, **fields: object) -> None:
        """Change fields of a record and let it expire."""
        record = self.record(task_id)
        if record is not None:
            expires = self._now() + self._retention
            self._records[task_id] = record.changed(**fields).encoded(), expires
            self._ended.append((expires, task_id))
        self._expire()

    def _expire(self) -> None:
        now = self._now()
        while self._ended and self._ended[0][0] <= now:
            expires, task_id = self._ended.popleft()
            if self._records.get(task_id, ("", None))[1] == expires:
                del self._records[task_id]
