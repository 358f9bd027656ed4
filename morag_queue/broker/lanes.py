"""Moves and edits of messages in lanes, inside Redis: no payload travels through the client."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from redis import Redis

from morag_queue.core.plan import MoveTask

from .codec import escaped
from .contract import MoveCounts, MoveOutcome
from .keys import Keys
from .lane_search import LaneSearch
from .ledger import END_KEYS
from .scripts import Call, Key, Script
from .translated import fenced
from .undo import UndoItem, packed

MOVE_CHUNK = 250
"""Messages per call: about 1 ms of the server's time, so that a claim never waits long."""

_PIPELINED = 16
"""Calls in flight at once: the server is never idle between two of them."""

_NEAR = 64
"""Messages searched at each end of a list for a chosen one; those of a plan were at an end when it was made."""


@dataclass(frozen=True)
class MoveLaneCall(Call):
    SCRIPT: ClassVar = "move_lane"
    KEYS: ClassVar = ("lease", "lanes")

    source: Key
    target: Key
    from_lane: str
    to_lane: str
    level: int
    to_level: int
    count: int
    skip: int
    keeps_gpu: bool
    term: str


@dataclass(frozen=True)
class MoveTaskCall(Call):
    SCRIPT: ClassVar = "move_task"
    KEYS: ClassVar = ("lease", "lanes")

    source: Key
    target: Key
    task: Key
    task_id: str
    needle: str
    lane: str
    level: int
    to_level: int
    keeps_gpu: bool
    depth: int
    exact: str | bytes
    term: str


class Moves:
    """Moves messages from lane to lane on one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._move_lane = Script(client, keys, MoveLaneCall)
        self._move_task = Script(client, keys, MoveTaskCall)
        self._search = LaneSearch(client, keys)

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
        """Move up to `count` of the oldest messages of one lane at one level, in order, to `to_level` (None: the same).

        Safe to repeat after an interruption. Messages that arrive in the lane meanwhile stay there. `keeps_gpu` leaves
        messages that need a GPU. Raises LeaseLost on a stale term.
        """
        to_level = level if to_level is None else to_level
        from_list, to_list = self._keys.list(source, level), self._keys.list(target, to_level)
        moved = left = need_gpu = 0  # what is left stays at the end where the oldest are: the next burst skips it
        while moved + left < count:
            calls = min(-(-(count - moved - left) // MOVE_CHUNK), _PIPELINED if left == 0 else 1)
            pipe = self._client.pipeline(transaction=False)
            requested = 0
            for _ in range(calls):
                size = min(MOVE_CHUNK, count - moved - left - requested)
                self._move_lane(
                    MoveLaneCall(
                        from_list, to_list, source, target, level, to_level, size, skip=left, keeps_gpu=keeps_gpu,
                        term=term,
                    ),
                    pipe,
                )  # fmt: skip
                requested += size
            with fenced():
                answers = pipe.execute()
            moved += sum(answer[0] for answer in answers)
            # Each call of a burst meets again what earlier calls have left: the highest count covers all of it.
            _, met, met_gpu = max(answers, key=lambda answer: answer[1])
            left, need_gpu = left + met, need_gpu + met_gpu
            if sum(answer[0] + answer[1] for answer in answers) == 0:
                break
        return MoveCounts(moved, left - need_gpu, need_gpu)

    def tasks(self, steps: Sequence[MoveTask], *, term: str = "") -> list[MoveOutcome]:
        """Move chosen messages, each in one atomic step and in this order; safe to repeat.

        Raises LeaseLost on a stale term.
        """
        outcomes: list[MoveOutcome] = []
        for start in range(0, len(steps), MOVE_CHUNK):
            burst = steps[start : start + MOVE_CHUNK]
            pipe = self._client.pipeline(transaction=False)
            for step in burst:
                self._move_task(self._call(step, term), pipe)
            with fenced():
                answers: list[bytes] = pipe.execute()
                outcomes += (
                    self._deep(step, term) if answer == b"deep" else MoveOutcome(answer.decode())
                    for step, answer in zip(burst, answers, strict=True)
                )
        return outcomes

    def _deep(self, step: MoveTask, term: str) -> MoveOutcome:
        """Search the middle of its list, a window at a time, and move it."""
        length = self._client.llen(self._keys.list(step.source, step.level))
        found = self._search.by_beginning(step.task_id, [(step.source, step.level, length)], whole=True, limit=1)
        if not found:
            return MoveOutcome.GONE
        answer: bytes = self._move_task(self._call(step, term, exact=found[0].raw))
        return MoveOutcome(answer.decode())

    def _call(self, step: MoveTask, term: str, *, exact: str | bytes = "") -> MoveTaskCall:
        return MoveTaskCall(
            source=self._keys.list(step.source, step.level), target=self._keys.list(step.target, step.to_level),
            task=self._keys.task(step.task_id), task_id=step.task_id, needle=f'"{escaped(step.task_id)}"',
            lane=step.target, level=step.level, to_level=step.to_level, keeps_gpu=step.keeps_gpu, depth=_NEAR,
            exact=exact, term=term,
        )  # fmt: skip


EDIT_CHUNK = 20
"""Tasks per call. Redis walks the list to remove them: from the middle of 200,000, that takes 10 to 30 ms."""


@dataclass(frozen=True, slots=True)
class LaneEdit:
    """One message as it was read (`raw`, at `depth` of its list, 1 is the next), and its new place and text.

    A `text` of None ends the task with `outcome`. `record` is the new ledger record (JSON), "" leaves it as it is; of a
    task that ends it is the ended record, to which the server adds "ended_at". With the outcome "" the task goes back
    into the state of `record` as it had ended, and its `letter` into `dead`, with the time `letter_at`.

    `place` is the depth that it is to have in the new list, as its enqueue time allows; None puts it behind the others.
    `undo` is what an undo of the edit needs.
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
    outcome: str = "cancelled"
    place: int | None = None
    letter: str = ""
    letter_at: float = 0.0
    undo: UndoItem | None = None


@dataclass(frozen=True)
class EditedMessage:
    """One edit of a call; `worker_lane` is the lane it goes to where that is a worker's, else ''."""

    target: Key
    task: Key
    task_id: str
    depth: int
    raw: bytes | str
    text: str | None
    place: int | None
    record: str
    queue: str
    worker_lane: str
    outcome: str
    letter: str
    letter_at: float


@dataclass(frozen=True)
class EditLaneCall(Call):
    SCRIPT: ClassVar = "edit_lane"
    KEYS: ClassVar = ("lanes", *END_KEYS)

    source: Key
    undo: Key
    retention: int
    items: bytes
    edits: Sequence[EditedMessage]


class LaneEdits:
    """Edits waiting messages of one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._keys, self._retention = keys, max(1, int(retention_seconds))
        self._script = Script(client, keys, EditLaneCall)

    def apply(self, edits: Sequence[LaneEdit], change_id: str = "") -> list[bool]:
        """Make the edits. In the order given, False for each message that was no longer where it had been read.

        With `change_id` they are recorded for the undo of that change.
        """
        done = [False] * len(edits)
        for key, numbers in self._runs(edits):
            removed = start = 0
            while start < len(numbers):
                part = numbers[start : start + EDIT_CHUNK]
                edited = [self._edited(edits[n], key, removed) for n in part]
                items = packed([edits[n].undo for n in part]) if change_id else b""
                answers: list[int] = self._script(
                    EditLaneCall(key, self._keys.undo(change_id), self._retention, items, edited)
                )
                start += len(answers)
                for n, answer in zip(part, answers, strict=False):
                    done[n] = bool(answer)
                    removed += bool(answer) and edits[n].place is None
        return done

    def _runs(self, edits: Sequence[LaneEdit]) -> Iterator[tuple[str, list[int]]]:
        """Yield the numbers of edits of one list that are sent together, with the key of the list.

        The next to run come first, so that they keep their order in the target; the others move up meanwhile. Edits
        with a place keep the order of the caller, in which each place counts those before it.
        """
        by_list: dict[str, list[int]] = defaultdict(list)
        lists = [self._keys.list(edit.lane, edit.level) for edit in edits]
        if any(edit.place is not None for edit in edits):
            for key, run in groupby(range(len(edits)), key=lists.__getitem__):
                yield key, list(run)
            return
        for n, key in enumerate(lists):
            by_list[key].append(n)
        for key, numbers in by_list.items():
            yield key, sorted(numbers, key=lambda n: edits[n].depth)

    def _edited(self, edit: LaneEdit, key: str, removed: int) -> EditedMessage:
        return EditedMessage(
            target=key if edit.text is None else self._keys.list(edit.to_lane, edit.to_level),
            task=self._keys.task(edit.task_id), task_id=edit.task_id, depth=max(edit.depth - removed, 1), raw=edit.raw,
            text=edit.text, place=edit.place, record=edit.record, queue=edit.queue,
            worker_lane=edit.to_lane if edit.to_worker_lane else "", outcome=edit.outcome, letter=edit.letter,
            letter_at=edit.letter_at,
        )  # fmt: skip
