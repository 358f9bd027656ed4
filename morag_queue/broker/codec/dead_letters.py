"""Dead letters, and the stories of tasks: how they failed or cost workers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morag_queue.core.enums import TaskState

from .fields import json_object, number, word
from .messages import header_of, read_arguments, read_message, task_of
from .records import LedgerRecord, read_record

Story = Sequence[tuple[float | None, str, str]]
"""How a task failed or cost workers: (seconds since the epoch, worker, reason) of each attempt, oldest first."""


def write_story(story: Story) -> str:
    return json.dumps(list(story)) if story else ""


def read_story(text: bytes | str | None) -> Story:
    try:
        return _story(json.loads(text) if text else ())
    except (ValueError, RecursionError):
        return ()


def _story(value: Any) -> Story:
    rows = value if isinstance(value, list) else ()
    return tuple(
        (number(row[0]), word(row[1]), word(row[2])) for row in rows if isinstance(row, list) and len(row) == 3
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One task in `dead`. `text` is the value as it was read: a change is made only if it still is the same."""

    task_id: str
    text: bytes
    fields: Mapping[str, Any]

    @property
    def at(self) -> float:
        """Seconds since the epoch; 0 where not known."""
        return number(self.fields.get("at")) or 0.0

    @property
    def state(self) -> TaskState:
        is_quarantined = self.fields.get("state") == TaskState.QUARANTINED
        return TaskState.QUARANTINED if is_quarantined else TaskState.FAILED

    @property
    def message(self) -> str | None:
        """None for a task that its worker acknowledged before it ran."""
        message = self.fields.get("message")
        return message if isinstance(message, str) else None

    @property
    def record(self) -> LedgerRecord | None:
        """The open ledger record, kept where there is no message."""
        entry = self.fields.get("entry")
        if isinstance(entry, dict):
            return LedgerRecord(entry)
        return read_record(entry) if isinstance(entry, str) else None

    @property
    def lane(self) -> str:
        return word(self.fields.get("lane"))

    @property
    def level(self) -> int:
        level = self.fields.get("level")
        return int(level) if isinstance(level, int | float) and 0 <= level <= 9 else 0

    @property
    def reason(self) -> str:
        return word(self.fields.get("reason"))

    @property
    def source(self) -> str:
        """Empty where not known: the message has only the arguments."""
        return word(self.fields.get("source"))

    def new_record(self, lane: str, level: int) -> str:
        """Return an open ledger record made from the message, where the ledger has dropped that of the task.

        Empty for a task that was not submitted through morag-queue.
        """
        message = read_message(self.message)
        if message is None or not self.source:
            return ""
        fields = {
            **header_of(message), "state": TaskState.QUEUED, "task": task_of(message), "source": self.source,
            "lane": lane, "level": level,
        }  # fmt: skip
        if (arguments := read_arguments(message)) is not None:
            fields["args"], fields["kwargs"] = arguments
        return json.dumps(fields)

    @property
    def story(self) -> Story:
        return _story(self.fields.get("story"))


def read_dead_letter(task_id: str, text: bytes) -> DeadLetter:
    """Read a value of `dead`. A broken one has no fields: it can still be listed and dropped."""
    return DeadLetter(task_id, text, json_object(text) or {})
