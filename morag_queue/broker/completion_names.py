"""Names that exist on the broker, each with a description, for shell completion.

Reads only, and little: no Lua, no lane from end to end, at most `LIMIT` descriptions. Records are read as plain JSON,
because the models need pydantic, whose import takes longer than a completion may take.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from time import time
from typing import Any

from .compact_record import expand
from .keys import Keys
from .light_client import LightClient, Reply

LIMIT = 50
"""Names offered at once; more would hide the useful ones."""

_SCANS = (1000, 10_000)
"""Keys of the first SCAN, which often is enough, and of the others: 2 ms of the server's time."""

_NEXT = 5
"""Waiting tasks looked at in each list."""

_LEVELS = range(10)
_OUT_OF_SERVICE = ("cordoned", "draining", "drained")
_ENDED = ("completed", "failed", "cancelled", "quarantined")

Offer = tuple[str, str]
"""A name and its description."""


class Names:
    """The names of one fleet. Each method takes the beginning of a name, which may be empty."""

    def __init__(self, client: LightClient, keys: Keys, queues: Sequence[str]) -> None:
        self._client, self._keys, self._queues = client, keys, queues
        self.readers: Mapping[str, Callable[[str], Iterable[Offer]]] = {
            "worker": self.workers,
            "cordoned_worker": lambda beginning: self.workers(beginning, cordoned_only=True),
            "queue": self.queues,
            "paused_queue": lambda beginning: self.queues(beginning, paused_only=True),
            "lane": self.lanes,
            "task": self.tasks,
            "open_task": lambda beginning: self.tasks(beginning, ended=False),
            "ended_task": lambda beginning: self.tasks(beginning, ended=True),
            "dead_letter": self.dead_letters,
            "journal_entry": self.journal_entries,
            "journal_verb": self.journal_verbs,
        }

    def workers(self, beginning: str, *, cordoned_only: bool = False) -> Iterator[Offer]:
        """Workers with the agent, then nodes without it."""
        keys = self._keys
        workers, cordons, mailboxes = self._client(
            ("HGETALL", keys.workers),
            ("HGETALL", keys.cordons),
            ("SMEMBERS", f"{keys.prefix}_kombu.binding.celery.pidbox"),
        )
        registered = _objects(workers)
        out = {name: _out_of_service(cordon) for name, cordon in _objects(cordons).items()}
        for name in sorted(registered.keys() | {name for name, state in out.items() if state}):
            state = out.get(name, "")
            if name.startswith(beginning) and (state or not cordoned_only):
                yield name, ", ".join(filter(None, [_word(registered.get(name, {}), "capability"), state]))
        nodes = {_word(record, "node") for record in registered.values()}
        for mailbox in sorted(_texts(mailboxes)):
            node = mailbox.rpartition(keys.sep)[2].removesuffix(".celery.pidbox")
            agentless = node not in nodes and node.partition("@")[0] not in registered
            if agentless and node.startswith(beginning) and not cordoned_only:
                yield node, "without the agent"

    def queues(self, beginning: str, *, paused_only: bool = False) -> Iterator[Offer]:
        """The queues, each with the number of its waiting tasks."""
        lengths = [("LLEN", self._keys.list(queue, level)) for queue in self._queues for level in _LEVELS]
        paused, *counts = self._client(("SMEMBERS", self._keys.paused), *lengths)
        for n, queue in enumerate(self._queues):
            waiting = sum(count for count in counts[n * 10 : n * 10 + 10] if isinstance(count, int))
            is_paused = queue in _texts(paused)
            if queue.startswith(beginning) and (is_paused or not paused_only):
                yield queue, f"{waiting} waiting{', paused' if is_paused else ''}"

    def lanes(self, beginning: str) -> Iterator[Offer]:
        """The shared lanes of the queues, then the lanes of workers."""
        (own,) = self._client(("SMEMBERS", self._keys.lanes))
        yield from ((queue, "shared lane") for queue in self._queues if queue.startswith(beginning))
        yield from ((lane, "lane of a worker") for lane in sorted(_texts(own)) if lane.startswith(beginning))

    def tasks(self, beginning: str, *, ended: bool | None = None) -> Iterator[Offer]:
        """Tasks that workers hold, then the next ones to run, then any in the ledger. `ended`: only such, or none."""
        found = self._ledger_ids(beginning)
        if not ended:
            found = chain(_starting(beginning, self._holders()), self._next_ids(beginning), found)
        if ended is not False:
            found = chain(found, self._dead_ids(beginning)) if beginning else chain(self._dead_ids(""), found)
        ids = list(islice(_unique(found), 2 * LIMIT))
        if not ids:
            return
        holders = self._holders() if not ended else {}
        records, dead = self._client(("MGET", *map(self._keys.task, ids)), ("HMGET", self._keys.dead, *ids))
        for task_id, text, letter in zip(ids, _list(records), _list(dead), strict=False):
            record = _object(letter) if letter else _object(text)
            state = _word(record, "state") or ("failed" if letter else "open")
            if ended is None or ended == (state in _ENDED):
                yield task_id, _described(record, state, holders.get(task_id, ""))

    def dead_letters(self, beginning: str) -> Iterator[Offer]:
        """Failed and quarantined tasks."""
        ids = list(islice(self._dead_ids(beginning), LIMIT))
        letters = self._client(("HMGET", self._keys.dead, *ids))[0] if ids else []
        for task_id, text in zip(ids, _list(letters), strict=False):
            letter = _object(text)
            yield task_id, f"{_word(letter, 'state') or 'failed'}: {_word(letter, 'reason')}"

    def journal_entries(self, beginning: str) -> Iterator[Offer]:
        """The latest changes, newest first."""
        for entry_id, entry in self._journal():
            if entry_id.startswith(beginning):
                parts = [_word(entry, "verb"), _word(entry, "subject"), f"by {_word(entry, 'who')}"]
                yield entry_id, f"{' '.join(filter(None, parts))}, {_ago(entry_id)}"

    def journal_verbs(self, beginning: str) -> Iterator[Offer]:
        """The verbs of the latest changes."""
        verbs = {_word(entry, "verb") for _, entry in self._journal()}
        yield from ((verb, "") for verb in sorted(verbs) if verb.startswith(beginning))

    def _journal(self) -> Iterator[tuple[str, dict[str, Any]]]:
        (entries,) = self._client(("XREVRANGE", self._keys.journal, "+", "-", "COUNT", LIMIT))
        for entry_id, fields in _list(entries):
            yield entry_id.decode(), _object(fields[1])

    def _holders(self) -> dict[str, str]:
        """Task id → worker of each held task; a record is [worker, incarnation, task id, …]."""
        (held,) = self._client(("HVALS", self._keys.held))
        records = (_json(text) for text in _list(held))
        return {str(one[2]): str(one[0]) for one in records if isinstance(one, list) and len(one) > 2}

    def _next_ids(self, beginning: str) -> Iterator[str]:
        lists = [self._keys.list(queue, level) for queue in self._queues for level in _LEVELS]
        for messages in self._client(*(("LRANGE", key, -_NEXT, -1) for key in lists)):
            headers = (_object(text).get("headers") for text in reversed(_list(messages)))
            yield from _starting(beginning, (_word(one, "id") for one in headers if isinstance(one, dict)))

    def _dead_ids(self, beginning: str) -> Iterator[str]:
        (ids,) = self._client(("HKEYS", self._keys.dead))
        yield from _starting(beginning, _texts(ids))

    def _ledger_ids(self, beginning: str) -> Iterator[str]:
        prefix = self._keys.task("")
        pattern = (prefix + beginning).translate(_GLOB) + "*"
        cursor = b"0"
        for count in chain(_SCANS, repeat(_SCANS[-1])):
            ((cursor, found),) = self._client(("SCAN", cursor.decode(), "MATCH", pattern, "COUNT", count))
            yield from (key.removeprefix(prefix) for key in _texts(found))
            if cursor == b"0":
                return


_GLOB = {ord(sign): f"\\{sign}" for sign in "*?[]\\"}


def _list(reply: Reply) -> list[Any]:
    """The items of an answer; none where it is an error or nil."""
    return reply if isinstance(reply, list) else []


def _texts(reply: Reply) -> list[str]:
    return [text.decode(errors="replace") for text in _list(reply)]


def _json(text: Reply) -> Any:
    try:
        return json.loads(text) if isinstance(text, bytes) else None
    except (ValueError, RecursionError):
        return None


def _object(text: Reply) -> dict[str, Any]:
    found = _json(text)
    return found if isinstance(found, dict) else {}


def _objects(reply: Reply) -> dict[str, dict[str, Any]]:
    """The answer to HGETALL, whose fields and values alternate."""
    items = _list(reply)
    return dict(zip(_texts(items[::2]), map(_object, items[1::2]), strict=True))


def _word(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _starting(beginning: str, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name and name.startswith(beginning))


def _unique(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            seen.add(name)
            yield name


def _out_of_service(cordon: Mapping[str, Any]) -> str:
    state, until = _word(cordon, "state"), cordon.get("until")
    has_expired = isinstance(until, int | float) and until <= time()
    return state if state in _OUT_OF_SERVICE and not has_expired else ""


def _described(record: dict[str, Any], state: str, holder: str) -> str:
    entry = record.get("entry")
    for fields in (record, entry):
        if isinstance(fields, dict):
            expand(fields)
    source = _word(record, "source") or (_word(entry, "source") if isinstance(entry, dict) else "")
    if holder:
        return f"held by {holder} {source}".rstrip()
    lane = "" if state in _ENDED else _word(record, "lane")
    return " ".join(filter(None, [state, lane and f"in {lane}", source]))


def _ago(entry_id: str) -> str:
    seconds = max(time() - int(entry_id.partition("-")[0]) / 1000, 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
