"""The journal of changes: author, time, reason and content. A capped stream."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from morag_queue.core.failure import eta

from .codec.fields import json_object, number
from .contract import JournalNote
from .keys import Keys
from .scripts import Call, Script
from .translated import fenced

if TYPE_CHECKING:
    from redis import Redis

    from morag_queue.core.model import JournalEntry

    from .broken import BrokenValues

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
    """The journal of one fleet. Entries that cannot be read are left out, and added to `broken`.

    To write entries, as a worker does, it needs no `broken`.
    """

    def __init__(self, client: "Redis", keys: Keys, broken: "BrokenValues | None" = None) -> None:
        self._client, self._keys, self._key, self._broken = client, keys, keys.journal, broken

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
        return list(self._read(self._page("+", limit)))

    def about(self, word: str, limit: int = 100) -> "list[JournalEntry]":
        """The newest entries that contain the word as a whole JSON string (a task id, for example), newest first."""
        wanted = json.dumps(word).encode()
        entries: list[JournalEntry] = []
        newest: str = "+"
        while len(entries) < limit:
            found = self._page(newest, _WINDOW)
            entries += self._read((name, fields) for name, fields in found if wanted in fields.get(b"entry", b""))
            if len(found) < _WINDOW:
                break
            newest = "(" + found[-1][0].decode()
        return entries[:limit]

    def get(self, entry_id: str) -> "JournalEntry | None":
        """One entry; None for an unknown id, or one that has been trimmed."""
        found: Any = self._client.xrange(self._key, entry_id, entry_id)
        return next(self._read(found), None)

    def _page(self, newest: str, limit: int) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        def page() -> Any:
            return self._client.xrevrange(self._key, newest, count=limit)

        found: Any = page() if self._broken is None else self._broken.read(self._key, page, [])
        return list(found)

    def _read(self, found: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> "Iterator[JournalEntry]":
        for entry_id, fields in found:
            entry = _entry(entry_id.decode(), json_object(fields.get(b"entry")))
            if entry is not None:
                yield entry
            elif self._broken is not None:
                self._broken.value("journal", entry_id)


def encoded(note: JournalNote) -> str:
    """An entry of the stream."""
    return json.dumps({**asdict(note), "changes": dict(note.changes)})


def _entry(entry_id: str, fields: dict[str, Any] | None) -> "JournalEntry | None":
    """The entry of an object; None for one of another form."""
    from pydantic import ValidationError

    from morag_queue.core.model import JournalEntry  # a worker writes entries, and needs no pydantic for that

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
