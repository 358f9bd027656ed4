"""The journal: who changed what, when and why. Capped; a change is never kept waiting for it."""

import json
from collections.abc import Mapping
from typing import Any

from redis import Redis

from morag_queue.core.failure import eta

from .contract import JournalEntry
from .keys import Keys

LENGTH = 10_000
"""Entries kept, about: Redis trims a stream by whole nodes."""
_LOOKED_AT = 1000
"""Entries a call, where the whole journal is searched."""


class Journal:
    """A capped stream in Redis."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._key = client, keys.journal

    def write(
        self, who: str, verb: str, subject: str, *, reason: str = "", plan_id: str = "", changes: Mapping[str, Any]
    ) -> str:
        """Appends one entry and gives its id."""
        fields = {"who": who, "verb": verb, "subject": subject, "reason": reason, "plan_id": plan_id}
        text = json.dumps({**fields, "changes": dict(changes)})
        entry_id: Any = self._client.xadd(self._key, {"entry": text}, maxlen=LENGTH, approximate=True)
        return str(entry_id.decode())

    def latest(self, limit: int) -> list[JournalEntry]:
        """The newest entries, newest first."""
        found: Any = self._client.xrevrange(self._key, count=limit)
        return [_entry(*one) for one in found]

    def about(self, word: str, limit: int = 100) -> list[JournalEntry]:
        """The newest entries whose text holds that word as a whole JSON string (a task's id, say), newest first."""
        wanted = json.dumps(word).encode()
        entries: list[JournalEntry] = []
        newest: str = "+"
        while len(entries) < limit:
            found: Any = self._client.xrevrange(self._key, newest, count=_LOOKED_AT)
            entries += (_entry(*one) for one in found if wanted in one[1][b"entry"])
            if len(found) < _LOOKED_AT:
                break
            newest = "(" + found[-1][0].decode()
        return entries[:limit]

    def get(self, entry_id: str) -> JournalEntry | None:
        """One entry; None where there is none of that id (or no longer)."""
        found: Any = self._client.xrange(self._key, entry_id, entry_id)
        return _entry(*found[0]) if found else None


def _entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> JournalEntry:
    name, entry = entry_id.decode(), json.loads(fields[b"entry"])
    entry["changes"] = {key: _in_words(key, value) for key, value in entry.get("changes", {}).items()}
    return JournalEntry(entry_id=name, at=int(name.partition("-")[0]) / 1000, **entry)


def _in_words(name: str, value: Any) -> Any:
    """Times of a cordon as ISO 8601: what an entry says has no types by which a view would know them."""
    if isinstance(value, dict) and name == "before":
        return {key: _in_words(key, item) for key, item in value.items()}
    return eta(value) if name in _TIMES and isinstance(value, int | float) else value


_TIMES = {"at", "deadline", "until"}
