"""The journal of changes: author, time, reason and content. A capped stream."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from morag_queue.core.failure import eta

from .broken import BrokenValues
from .codec.fields import json_object, number
from .contract import JournalEntry, JournalNote
from .keys import Keys

if TYPE_CHECKING:
    from redis import Redis

LENGTH = 10_000
"""Entries kept, approximately: Redis trims a stream by whole nodes."""

_WINDOW = 1000
"""Entries per call when the whole journal is searched."""


class Journal:
    """The journal of one fleet."""

    def __init__(self, client: "Redis", keys: Keys, broken: BrokenValues | None = None) -> None:
        self._client, self._key, self._broken = client, keys.journal, broken or BrokenValues(keys)

    def write(
        self, who: str, verb: str, subject: str, *, reason: str = "", plan_id: str = "", changes: Mapping[str, Any]
    ) -> str:
        """Append one entry and return its id."""
        text = encoded(JournalNote(who, verb, subject, reason, plan_id, changes))
        entry_id: Any = self._client.execute_command("XADD", self._key, "MAXLEN", "~", LENGTH, "*", "entry", text)
        return str(entry_id.decode())

    def latest(self, limit: int) -> list[JournalEntry]:
        """The newest entries, newest first; without those that cannot be read."""
        found: Any = self._broken.read(self._key, lambda: self._client.xrevrange(self._key, count=limit), ())
        return list(self._read(found))

    def about(self, word: str, limit: int = 100) -> list[JournalEntry]:
        """The newest entries that contain the word as a whole JSON string (a task id, for example), newest first."""
        wanted = json.dumps(word).encode()
        entries: list[JournalEntry] = []
        newest: str = "+"
        while len(entries) < limit:
            found: Any = self._broken.read(
                self._key, partial(self._client.xrevrange, self._key, newest, count=_WINDOW), ()
            )
            entries += self._read((name, fields) for name, fields in found if wanted in fields.get(b"entry", b""))
            if len(found) < _WINDOW:
                break
            newest = "(" + found[-1][0].decode()
        return entries[:limit]

    def get(self, entry_id: str) -> JournalEntry | None:
        """One entry; None for an unknown id, or one that has been trimmed."""
        found: Any = self._client.xrange(self._key, entry_id, entry_id)
        return next(self._read(found), None)

    def _read(self, found: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> Iterator[JournalEntry]:
        for entry_id, fields in found:
            entry = _entry(entry_id.decode(), json_object(fields.get(b"entry")))
            if entry is None:
                self._broken.value("journal", entry_id)
            else:
                yield entry


def encoded(note: JournalNote) -> str:
    """An entry of the stream."""
    return json.dumps({**asdict(note), "changes": dict(note.changes)})


def _entry(entry_id: str, fields: dict[str, Any] | None) -> JournalEntry | None:
    """The entry of an object; None for one of another form."""
    if fields is None or not isinstance(changes := fields.get("changes", {}), dict):
        return None
    at = number(int(entry_id.partition("-")[0]) / 1000)  # an id may be written by hand
    changes = {name: _in_words(name, value) for name, value in changes.items()}
    try:
        return JournalEntry.model_validate({**fields, "entry_id": entry_id, "at": at or 0.0, "changes": changes})
    except ValidationError:
        return None


def _in_words(name: str, value: Any) -> Any:
    """The value with times of a cordon as ISO 8601: entries have no types by which a view could recognise them."""
    if isinstance(value, dict) and name == "before":
        return {key: _in_words(key, item) for key, item in value.items()}
    return eta(value) if name in _TIMES and isinstance(value, int | float) else value


_TIMES = {"at", "deadline", "until"}
