"""Lists of messages in memory. They hold decoded messages: what Redis rewrites in a text, this changes in a field.

As in kombu's lists, the oldest message is on the right and a new one is added on the left.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from morag_queue.broker.codec import Read, header_of, lane_entry, read_message, task_id_of
from morag_queue.broker.contract import MoveCounts, MoveOutcome
from morag_queue.core import lanes
from morag_queue.core.model import Requires
from morag_queue.core.plan import MoveTask


class Message:
    """One message, decoded. A foreign text has `content` None and is never changed."""

    __slots__ = ("_read", "content", "raw")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        found = read_message(raw)
        self.content = found if found and isinstance(found["properties"].get("delivery_tag"), str) else None
        self._read: tuple[int, Read] | None = None

    @property
    def task_id(self) -> str:
        return task_id_of(self.content) if self.content else ""

    @property
    def needs_gpu(self) -> bool:
        return self.content is not None and header_of(self.content).get("requires") == Requires.GPU

    def address(self, lane: str, level: int | None = None, tag: str | None = None) -> bool:
        """Write the new lane, and the new priority and delivery tag if given.

        Returns False, and changes nothing, if the message lacks these fields.
        """
        properties = self.content["properties"] if self.content else {}
        info, priority = properties.get("delivery_info"), properties.get("priority")
        if not isinstance(info, dict) or not isinstance(info.get("routing_key"), str):
            return False
        if level is not None:
            if not isinstance(priority, int):
                return False
            properties["priority"] = level
        if tag is not None:
            properties["delivery_tag"] = tag
        info["routing_key"] = lane
        return True

    def delay_until(self, eta: str) -> None:
        """Set the earliest start of a message that has none of its own."""
        headers = self.content["headers"] if self.content else {}
        if headers.get("eta") is None:
            headers["eta"] = eta

    def head(self, level: int) -> Read:
        """The entry as a snapshot shows it."""
        if self._read is None or self._read[0] != level:
            self._read = level, lane_entry(self.raw, level)
        return self._read[1]


class MessageLists:
    """All lists of a fleet, and every worker lane that was ever used."""

    def __init__(self) -> None:
        self._lists: defaultdict[tuple[str, int], deque[Message]] = defaultdict(deque)
        self.worker_lanes: dict[str, None] = {}

    def of(self, lane: str, level: int) -> deque[Message]:
        return self._lists[lane, level]

    def push(self, lane: str, level: int, message: Message) -> None:
        """Put it behind those that wait there."""
        self._lists[lane, level].appendleft(message)
        self._register(lane)

    def push_first(self, lane: str, level: int, message: Message) -> None:
        """Put it in front of those that wait there."""
        self._lists[lane, level].append(message)
        self._register(lane)

    def _register(self, lane: str) -> None:
        if lanes.split(lane)[1] is not None:
            self.worker_lanes[lane] = None


class MemoryMoves:
    """`check` raises LeaseLost on a stale term; `on_moved` is called with the task id, its new lane and level."""

    def __init__(
        self, lists: MessageLists, check: Callable[[str], None], on_moved: Callable[[str, str, int], None]
    ) -> None:
        self._lists, self._check, self._on_moved = lists, check, on_moved

    def lane(
        self,
        source: str,
        target: str,
        level: int,
        count: int,
        *,
        to_level: int | None = None,
        term: str = "",
        keeps_gpu: bool = False,
    ) -> MoveCounts:
        if count:
            self._check(term)
        to_level = level if to_level is None else to_level
        waiting = self._lists.of(source, level)
        kept: list[Message] = []
        moved = left = need_gpu = 0
        while waiting and moved + left + need_gpu < count:
            message = waiting.pop()
            if keeps_gpu and message.needs_gpu:
                need_gpu += 1
                kept.append(message)
            elif message.address(target, to_level if to_level != level else None):
                moved += 1
                self._lists.push(target, to_level, message)
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
