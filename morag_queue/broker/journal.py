"""The journal of changes: author, time, reason and content. A capped stream."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from morag_queue.core.failure import eta

from .contract import JournalNote
from .keys import Keys
from .scripts import Call, Script
from .translated import fenced

if TYPE_CHECKING:
    from redis import Redis

    from morag_queue.core.model import JournalEntry

LENGTH = 10_000
"""Entries kept, approximately: Redis trims a stream by whole nodes."""

_WINDOW = 1000
"""Entries per call when the whole journal is searched."""


BEGUN = "begun"
"""State of a change whose command has not ended, or was killed."""


@dataclass(frozen=True)
class BeginEntryCall(Call):
    SCRIPT: ClassVar = "begin_entry"
    KEYS: ClassVar = ("lease", "journal")

    entry: str
    length: int
    term: str


@dataclass(frozen=True)
class FinishEntryCall(Call):
    SCRIPT: ClassVar = "finish_entry"
    KEYS: ClassVar = ("journal",)

    begun: str
    entry: str
    length: int


class Journal:
    """The journal of one fleet."""

    def __init__(self, client: "Redis", keys: Keys) -> None:
        self._client, self._keys, self._key = client, keys, keys.journal

    def write(
        self, who: str, verb: str, subject: str, *, reason: str = "", plan_id: str = "", changes: Mapping[str, Any]
    ) -> str:
        """Append one entry and return its id."""
        text = encoded(JournalNote(who, verb, subject, reason, plan_id, changes))
        entry_id: Any = self._client.execute_command("XADD", self._key, "MAXLEN", "~", LENGTH, "*", "entry", text)
        return str(entry_id.decode())

    def begin(self, note: JournalNote, *, term: str = "") -> str:
        """Write the intent of a change before its first step, and return the id of the entry.

        It stays if the command is killed; `finish` replaces it. Raises LeaseLost on a stale term.
        """
        entry = encoded(replace(note, changes={"state": BEGUN, **note.changes}))
        with fenced():
            answer: bytes = Script(self._client, self._keys, BeginEntryCall)(BeginEntryCall(entry, LENGTH, term))
        return answer.decode()

    def finish(self, begun: str, note: JournalNote) -> str:
        """Replace the entry of a begun change, in one step, and return the id of the new one."""
        note = replace(note, changes={**note.changes, "begun": begun})
        answer: bytes = Script(self._client, self._keys, FinishEntryCall)(FinishEntryCall(begun, encoded(note), LENGTH))
        return answer.decode()

    def withdraw(self, begun: str) -> None:
        """Remove the entry of a begun change that changed nothing."""
        self._client.xdel(self._key, begun)

    def latest(self, limit: int) -> "list[JournalEntry]":
        """The newest entries, newest first."""
        found: Any = self._client.xrevrange(self._key, count=limit)
        return [_entry(*entry) for entry in found]

    def about(self, word: str, limit: int = 100) -> "list[JournalEntry]":
        """The newest entries that contain the word as a whole JSON string (a task id, for example), newest first."""
        wanted = json.dumps(word).encode()
        entries: list[JournalEntry] = []
        newest: str = "+"
        while len(entries) < limit:
            found: Any = self._client.xrevrange(self._key, newest, count=_WINDOW)
            entries += (_entry(*entry) for entry in found if wanted in entry[1][b"entry"])
            if len(found) < _WINDOW:
                break
            newest = "(" + found[-1][0].decode()
        return entries[:limit]

    def get(self, entry_id: str) -> "JournalEntry | None":
        """One entry; None for an unknown id, or one that has been trimmed."""
        found: Any = self._client.xrange(self._key, entry_id, entry_id)
        return _entry(*found[0]) if found else None


def encoded(note: JournalNote) -> str:
    """An entry of the stream."""
    return json.dumps({**asdict(note), "changes": dict(note.changes)})


def _entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> "JournalEntry":
    from morag_queue.core.model import JournalEntry  # a worker writes entries, and needs no pydantic for that

    name, entry = entry_id.decode(), json.loads(fields[b"entry"])
    entry["changes"] = {key: _in_words(key, value) for key, value in entry.get("changes", {}).items()}
    return JournalEntry(entry_id=name, at=int(name.partition("-")[0]) / 1000, **entry)


def _in_words(name: str, value: Any) -> Any:
    """The value with times of a cordon as ISO 8601: entries have no types by which a view could recognise them."""
    if isinstance(value, dict) and name == "before":
        return {key: _in_words(key, item) for key, item in value.items()}
    return eta(value) if name in _TIMES and isinstance(value, int | float) else value


_TIMES = {"at", "deadline", "until"}
