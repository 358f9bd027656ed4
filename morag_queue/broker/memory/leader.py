"""Lease, balancer state and journal of a fleet in memory."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from morag_queue.broker.contract import JournalNote
from morag_queue.broker.journal import BEGUN
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.model import JournalEntry, Lease
from morag_queue.errors import LeaseLost

_ENTRIES = 10_000


class MemoryLeases:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._term = now, 0
        self._lease: Lease | None = None

    def take(self, holder: str, who: str, verb: str, seconds: float) -> Lease:
        lease = self.current()
        if lease is None:
            self._term += 1
            now = self._now()
            lease = Lease(holder=holder, term=self._term, who=who, verb=verb, since=now, until=now + seconds)
        elif lease.holder == holder:
            lease = lease.model_copy(update={"until": self._now() + seconds})
        else:
            return lease
        self._lease = lease
        return lease

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        if not self._is_current(lease):
            return None
        self._lease = lease.model_copy(update={"until": self._now() + seconds})
        return self._lease

    def give_up(self, lease: Lease) -> bool:
        held = self._is_current(lease)
        if held:
            self._lease = None
        return held

    def current(self) -> Lease | None:
        if self._lease is not None and self._lease.until <= self._now():
            self._lease = None
        return self._lease

    def check(self, term: str) -> None:
        """Raise LeaseLost if a term is given and the lease has another one."""
        lease = self.current()
        if term and (lease is None or str(lease.term) != term):
            raise LeaseLost

    def _is_current(self, lease: Lease) -> bool:
        current = self.current()
        return current is not None and (current.holder, current.term) == (lease.holder, lease.term)


class MemoryStateStore:
    def __init__(self, leases: MemoryLeases) -> None:
        self._leases, self._state = leases, BalancerState()

    def load(self) -> BalancerState:
        return self._state

    def save(self, state: BalancerState, *, term: str = "") -> None:
        self._leases.check(term)
        self._state = state


class MemoryJournal:
    def __init__(self, now: Callable[[], float], check: Callable[[str], None]) -> None:
        self._now, self._check, self._count = now, check, 0
        self._entries: deque[JournalEntry] = deque(maxlen=_ENTRIES)

    def write(
        self, who: str, verb: str, subject: str, *, reason: str = "", plan_id: str = "", changes: Mapping[str, Any]
    ) -> str:
        now = self._now()
        self._count += 1
        entry = JournalEntry(
            entry_id=f"{int(now * 1000)}-{self._count}", at=now, who=who, verb=verb, subject=subject, reason=reason,
            plan_id=plan_id, changes=dict(changes),
        )  # fmt: skip
        self._entries.appendleft(entry)
        return entry.entry_id

    def append(self, note: JournalNote) -> str:
        return self.write(
            note.who, note.verb, note.subject, reason=note.reason, plan_id=note.plan_id, changes=note.changes
        )  # fmt: skip

    def begin(self, note: JournalNote, *, term: str = "") -> str:
        self._check(term)
        return self.append(replace(note, changes={"state": BEGUN, **note.changes}))

    def finish(self, begun: str, note: JournalNote) -> str:
        self.withdraw(begun)
        return self.append(replace(note, changes={**note.changes, "begun": begun}))

    def withdraw(self, begun: str) -> None:
        self._entries = deque((one for one in self._entries if one.entry_id != begun), maxlen=_ENTRIES)

    def latest(self, limit: int) -> list[JournalEntry]:
        return list(self._entries)[:limit]

    def get(self, entry_id: str) -> JournalEntry | None:
        return next((one for one in self._entries if one.entry_id == entry_id), None)
