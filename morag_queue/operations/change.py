"""A mass change in the journal: the intent is written before its first step, the result after its last.

A command that is killed in between leaves the entry of the intent. What it has done is recorded with each step, see
`broker.undo`, so `journal undo` takes it back.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from morag_queue.broker.contract import Broker, JournalNote


class Change:
    """One change by one command. `change_id` is the plan id of its entry, and the name of its undo record."""

    def __init__(
        self, broker: Broker, verb: str, *, who: str, reason: str = "", change_id: str = "", term: str = ""
    ) -> None:
        """`term` is that of the caller's lease."""
        self._broker, self._verb, self._who, self._reason, self._term = broker, verb, who, reason, term
        self.change_id = change_id or str(uuid4())
        self._begun = ""

    def begin(self, subject: str, facts: Mapping[str, Any]) -> None:
        """Write the intent, unless it is written already. Raises LeaseLost on a stale term."""
        if not self._begun:
            with self._broker.translated():
                self._begun = self._broker.journal.begin(self._note(subject, facts), term=self._term)

    def finish(self, subject: str, changes: Mapping[str, Any]) -> str:
        """Write the result and return the id of its entry; "" if nothing was begun."""
        if not self._begun:
            return ""
        with self._broker.translated():
            return self._broker.journal.finish(self._begun, self._note(subject, changes))

    def withdraw(self) -> None:
        """Remove the intent: nothing was changed."""
        if self._begun:
            with self._broker.translated():
                self._broker.journal.withdraw(self._begun)

    def _note(self, subject: str, changes: Mapping[str, Any]) -> JournalNote:
        return JournalNote(self._who, self._verb, subject, self._reason, self.change_id, changes)
