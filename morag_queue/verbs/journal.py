"""journal: the changes, the newest first, and one of them by its id."""

from morag_queue.errors import UsageError
from morag_queue.ports import Broker, JournalEntry

_SEARCHED = 10_000


def latest(broker: Broker, limit: int, verb: str | None = None) -> list[JournalEntry]:
    """The newest changes, those of one verb only if it is named."""
    with broker.translated():
        if verb is None:
            return broker.journal.latest(limit)
        return [one for one in broker.journal.latest(_SEARCHED) if one.verb == verb][:limit]


def entry(broker: Broker, beginning: str) -> JournalEntry | None:
    """The change of that id, or the only one whose id, or plan's id, begins so. Raises UsageError where several do."""
    with broker.translated():
        entries = broker.journal.latest(_SEARCHED)
    found = [one for one in entries if one.entry_id == beginning] or [
        one for one in entries if one.entry_id.startswith(beginning) or one.plan_id.startswith(beginning)
    ]
    if len(found) > 1:
        shown = ", ".join(one.entry_id for one in found[:10])
        raise UsageError(f"journal entry {beginning!r} is ambiguous: {shown}{' …' if len(found) > 10 else ''}")
    return found[0] if found else None
