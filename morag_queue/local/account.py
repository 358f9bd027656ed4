"""The account of a run, in the words of RabbitMQ's Jepsen suite.

attempted     sent by the producer
acknowledged  accepted by the broker
executed      ended at least once
lost          acknowledged, never executed
duplicated    executed more than once
recovered     executed although the producer got no acknowledgement
unexpected    executed, never sent
stuck         in `unacked` or `mq:held` without a live owner

With at-least-once delivery lost, unexpected and stuck are empty, and only tasks that ran on a worker that died are
duplicated.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from morag_queue.broker.client_list import client_list
from morag_queue.broker.codec import read_held, read_worker
from morag_queue.broker.keys import Keys
from morag_queue.core.model import HeldMessage


@dataclass(frozen=True, slots=True)
class Account:
    """Task ids; `executed` counts the ends of each, `stuck` holds delivery tags. `str()` gives one line."""

    attempted: frozenset[str]
    acknowledged: frozenset[str]
    executed: Mapping[str, int]
    stuck: tuple[str, ...] = ()

    @property
    def lost(self) -> frozenset[str]:
        return self.acknowledged - self.executed.keys()

    @property
    def duplicated(self) -> frozenset[str]:
        return frozenset(task_id for task_id, times in self.executed.items() if times > 1)

    @property
    def recovered(self) -> frozenset[str]:
        return (self.attempted - self.acknowledged) & self.executed.keys()

    @property
    def unexpected(self) -> frozenset[str]:
        return frozenset(self.executed) - self.attempted

    def counts(self) -> dict[str, int]:
        """Return the size of each set, in the order of the module docstring."""
        words = ("attempted", "acknowledged", "executed", "lost", "duplicated", "recovered", "unexpected", "stuck")
        return {word: len(getattr(self, word)) for word in words}

    def __str__(self) -> str:
        return "  ".join(f"{word} {count}" for word, count in self.counts().items())


def account(
    attempted: Iterable[str], acknowledged: Iterable[str], ended: Iterable[str], stuck: Iterable[str] = ()
) -> Account:
    """Build the account. `ended` names a task once for each of its ends."""
    return Account(frozenset(attempted), frozenset(acknowledged), Counter(ended), tuple(stuck))


def stuck_tags(client: Redis, keys: Keys) -> list[str]:
    """Delivery tags in `unacked` or `held` without a registered and connected owner. `client` must decode answers.

    A stopped process (SIGSTOP) counts as an owner. A worker that is reconnecting does not: check again.
    """
    holders = {str(tag): read_held(tag, record) for tag, record in client.hgetall(keys.held).items()}
    acting = client.hgetall(keys.incarnations)
    infos = {str(worker): read_worker(str(worker), record) for worker, record in client.hgetall(keys.workers).items()}
    client_names = {worker: info.client_name for worker, info in infos.items() if info is not None}
    connected = client_list(client).names

    def is_alive(holder: HeldMessage | None) -> bool:
        if holder is None or acting.get(holder.worker) != holder.incarnation:
            return False
        return client_names.get(holder.worker) in connected

    tags = {*holders, *map(str, client.hkeys(keys.unacked))}
    return sorted(tag for tag in tags if not is_alive(holders.get(tag)))


class Progress:
    """Progress from the notes of `local.app`, read incrementally.

    `ended` counts ends by task; `first_start`: seconds since the epoch by task; `running`: task ids by worker.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.ended: Counter[str] = Counter()
        self.first_start: dict[str, float] = {}
        self.running: defaultdict[str, set[str]] = defaultdict(set)

    def read(self) -> None:
        """Read new notes. An incomplete last line waits for the next call."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as notes:
            notes.seek(self._offset)
            fresh = notes.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            note = json.loads(line)
            task, worker = note["task"], note["worker"]
            if note["event"] == "start":
                self.first_start.setdefault(task, note["at"])
                self.running[worker].add(task)
            else:
                self.ended[task] += note["event"] == "end"
                self.running[worker].discard(task)
