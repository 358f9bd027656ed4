"""Pause and resume queues."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from morag_queue.core.model import Pause, QueueType

from .journal import LENGTH, encoded
from .keys import Keys
from .scripts import Call, Script

if TYPE_CHECKING:
    from redis import Redis

    from .contract import JournalNote


@dataclass(frozen=True)
class PauseCall(Call):
    SCRIPT: ClassVar = "pause"
    KEYS: ClassVar = ("paused", "pauses", "journal")

    queue: str
    record: str
    note: str
    length: int


class Pauses:
    """The paused queues of one fleet."""

    def __init__(self, client: "Redis", keys: Keys) -> None:
        self._script = Script(client, keys, PauseCall)

    def put(self, queue: QueueType, pause: Pause | None, note: "JournalNote | None" = None) -> bool:
        """Pause a queue, or resume it with None. Return False if it was so already; a pause keeps its first record.

        `note` goes to the journal in the same step, if the queue was not so already.
        """
        record = "" if pause is None else pause.model_dump_json()
        return bool(self._script(PauseCall(queue, record, "" if note is None else encoded(note), LENGTH)))
