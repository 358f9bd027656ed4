"""Recovery and cordons of a fleet in memory: requeue held messages, resend lost tasks, fence and cordon workers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from morag_queue.core.model import Cordon, Heartbeat, HeldMessage, WorkerInfo, WorkerStatus

from .lanes import Message, MessageLists
from .leader import MemoryJournal
from .ledger import MemoryLedger

if TYPE_CHECKING:
    from morag_queue.broker.contract import JournalNote
    from morag_queue.broker.lost_work import ResendRequest
from morag_queue.broker.requeue import RequeueRequest

Held = dict[str, tuple[HeldMessage, Message]]
Check = Callable[[str], None]
FENCED = "fenced"


class MemoryEvidence:
    """Incarnations that may act, and how many workers have died over each task."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._acting: dict[str, str] = {}
        self._deaths: defaultdict[str, int] = defaultdict(int)

    def attempts(self, task_ids: Iterable[str]) -> dict[str, int]:
        return {task_id: self._deaths[task_id] for task_id in task_ids if task_id in self._deaths}

    def fence(self, worker: str, incarnation: str, *, term: str = "") -> str:
        self._check(term)
        acting = self._acting.get(worker, "")
        if acting == incarnation:
            self._acting[worker] = FENCED
            return ""
        return acting

    def register(self, info: WorkerInfo) -> None:
        self._acting[info.worker] = info.incarnation

    def is_fenced(self, worker: str) -> bool:
        return self._acting.get(worker) == FENCED

    def count_death(self, task_id: str, allowed: int) -> bool:
        """Count a death. Return False, and reset the count, if it exceeds `allowed`."""
        self._deaths[task_id] += 1
        if self._deaths[task_id] <= allowed:
            return True
        del self._deaths[task_id]
        return False


class MemoryCordons:
    def __init__(self, now: Callable[[], float], check: Check, journal: MemoryJournal) -> None:
        self._now, self._check, self._journal = now, check, journal
        self._cordons: dict[str, Cordon] = {}

    def get(self, worker: str) -> Cordon | None:
        cordon = self._cordons.get(worker)
        return cordon if cordon is not None and cordon.is_in_force(self._now()) else None

    def put(
        self,
        worker: str,
        cordon: Cordon | None,
        over: Iterable[WorkerStatus | None],
        *,
        term: str = "",
        note: "JournalNote | None" = None,
    ) -> bool:
        self._check(term)
        present = self.get(worker)
        if (None if present is None else present.state) not in over:
            return False
        self._cordons.pop(worker, None)
        if cordon is not None:
            self._cordons[worker] = cordon
        if note is not None:
            self._journal.append(note)
        return True


class MemoryRequeues:
    """`dead` keeps the quarantined messages by task id. Beats touch all that their worker holds."""

    def __init__(
        self,
        lists: MessageLists,
        held: Held,
        ledger: MemoryLedger,
        evidence: MemoryEvidence,
        beats: Mapping[str, Heartbeat],
        check: Check,
    ) -> None:
        self._lists, self._held, self._ledger, self._evidence = lists, held, ledger, evidence
        self._beats, self._check = beats, check
        self.dead: dict[str, Message] = {}

    def apply(self, requests: Iterable["RequeueRequest"], *, term: str = "") -> Sequence[str]:
        return [self._requeue(request, term) for request in requests]

    def _requeue(self, request: "RequeueRequest", term: str) -> str:
        self._check(term)
        holder, message = self._held.get(request.tag, (None, None))
        if holder is None or message is None or holder.incarnation != request.incarnation:
            return "gone"
        if request.untouched_since is not None and self._touched_at(holder) >= request.untouched_since:
            return "gone"
        if not message.address(request.lane, tag=str(uuid4())):
            return "foreign"
        del self._held[request.tag]
        allowed = request.max_deaths
        if allowed is not None and not self._evidence.count_death(holder.task_id, allowed):
            return quarantine(self, self._ledger, holder.task_id, message)
        if request.eta:
            message.delay_until(request.eta)
        self._lists.push_first(request.lane, request.level, message)
        return "moved"

    def _touched_at(self, holder: HeldMessage) -> float:
        beat = self._beats.get(holder.worker)
        return max(holder.claimed_at, beat.at if beat else 0.0)


class MemoryLostTasks:
    def __init__(
        self,
        lists: MessageLists,
        ledger: MemoryLedger,
        evidence: MemoryEvidence,
        requeues: MemoryRequeues,
        check: Check,
    ) -> None:
        self._lists, self._ledger, self._evidence = lists, ledger, evidence
        self._requeues, self._check = requeues, check

    def resend(self, request: "ResendRequest", max_losses: int, *, term: str = "") -> str:
        self._check(term)
        record = self._ledger.record(request.task_id)
        if record is None or record.text != request.seen:
            return "changed"
        message = Message(request.text)
        if not self._evidence.count_death(request.task_id, max_losses):
            return quarantine(self._requeues, self._ledger, request.task_id, message)
        self._ledger.write(request.task_id, request.record)
        self._lists.push_first(request.lane, request.level, message)
        return "resent"


def quarantine(requeues: MemoryRequeues, ledger: MemoryLedger, task_id: str, message: Message) -> str:
    """Keep the message as a dead letter. Its record stays open in the state `quarantined`."""
    requeues.dead[task_id] = message
    ledger.update(task_id, state="quarantined")
    return "quarantined"
