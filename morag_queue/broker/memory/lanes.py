"""Lists of messages in memory. They hold messages, not text: what Redis rewrites in a text, this changes in a message.

As in kombu's lists, the oldest is on the right and a new one comes in on the left.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from morag_queue.broker.codec import Read, decoded, lane_entry
from morag_queue.broker.contract import MoveCounts, MoveOutcome
from morag_queue.core import lanes
from morag_queue.core.model import Requires
from morag_queue.core.plan import MoveTask


class Message:
    """One message: what Celery wrote, decoded; or a foreign text, whose `content` is None and that nothing touches."""

    __slots__ = ("_read", "content", "raw")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        found = decoded(raw)
        self.content = found if found and isinstance(found["properties"].get("delivery_tag"), str) else None
        self._read: tuple[int, Read] | None = None

    @property
    def task_id(self) -> str:
        found = self.content["headers"].get("id") if self.content else None
        return found if isinstance(found, str) else ""

    @property
    def needs_gpu(self) -> bool:
        entry = self.content["headers"].get("morag_queue") if self.content else None
        return isinstance(entry, dict) and entry.get("requires") == Requires.GPU

    def address(self, lane: str, level: int | None = None) -> bool:
        """Writes its new address, and its new priority; False, and nothing is changed, where it has no such fields."""
        properties = self.content["properties"] if self.content else {}
        info, priority = properties.get("delivery_info"), properties.get("priority")
        if not isinstance(info, dict) or not isinstance(info.get("routing_key"), str):
            return False
        if level is not None:
            if not isinstance(priority, int):
                return False
            properties["priority"] = level
        info["routing_key"] = lane
        return True

    def head(self, level: int) -> Read:
        """The entry, as the picture has it."""
        if self._read is None or self._read[0] != level:
            self._read = level, lane_entry(self.raw, level)
        return self._read[1]


class MessageLists:
    """All lists of a fleet, and the worker lanes that were ever used."""

    def __init__(self) -> None:
        self._lists: defaultdict[tuple[str, int], deque[Message]] = defaultdict(deque)
        self.worker_lanes: dict[str, None] = {}

    def of(self, lane: str, level: int) -> deque[Message]:
        return self._lists[lane, level]

    def push(self, lane: str, level: int, message: Message) -> None:
        """Behind those that wait there."""
        self._lists[lane, level].appendleft(message)
        if lanes.split(lane)[1] is not None:
            self.worker_lanes[lane] = None


class MemoryMoves:
    """`check` raises LeaseLost on a stale term; `on_moved` hears where a task has gone."""

    def __init__(
        self, lists: MessageLists, check: Callable[[str], None], on_moved: Callable[[str, str, int], None]
    ) -> None:
        self._lists, self._check, self._on_moved = lists, check, on_moved

    def lane(
        self, source: str, target: str, level: int, count: int, *, term: str = "", keeps_gpu: bool = False
    ) -> MoveCounts:
        if count:
            self._check(term)
        waiting = self._lists.of(source, level)
        kept: list[Message] = []
        moved = left = need_gpu = 0
        while waiting and moved + left + need_gpu < count:
            message = waiting.pop()
            if keeps_gpu and message.needs_gpu:
                need_gpu += 1
                kept.append(message)
            elif message.address(target):
                moved += 1
                self._lists.push(target, level, message)
            else:
                left += 1
                kept.append(message)
        waiting.extend(reversed(kept))
        return MoveCounts(moved, left, need_gpu)

    def tasks(self, steps: Sequence[MoveTask], *, term: str = "") -> list[MoveOutcome]:
        return [self._task(step, term) for step in steps]

    def _task(self, step: MoveTask, term: str) -> MoveOutcome:
        self._check(term)
        waiting = self._lists.of(step.source, step.level)
        message = next((one for one in reversed(waiting) if one.task_id == step.task_id), None)
        if message is None:
            return MoveOutcome.GONE
        if message.needs_gpu and step.keeps_gpu:
            return MoveOutcome.GPU
        if not message.address(step.target, step.to_level if step.to_level != step.level else None):
            return MoveOutcome.FOREIGN
        waiting.remove(message)
        self._lists.push(step.target, step.to_level, message)
        self._on_moved(step.task_id, step.target, step.to_level)
        return MoveOutcome.MOVED
