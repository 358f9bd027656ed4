"""The account of a run, in the words of RabbitMQ's Jepsen suite.

What was attempted was sent; acknowledged, the broker took it; executed, its task ended at least once. Lost was
acknowledged and never executed. Duplicated was executed more than once. Recovered was executed though its sender
never heard that it was taken. Unexpected was executed and never sent. Stuck lies in `unacked` or `mq:held` with no live
owner. At-least-once: lost, unexpected and stuck are none; duplicated are at most those that ran on a worker that died.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from morag_queue.broker.client_list import client_list
from morag_queue.broker.keys import Keys


@dataclass(frozen=True, slots=True)
class Account:
    """Task ids; `executed` says how often each ended, `stuck` are delivery tags. `str()` prints it."""

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
        """The number of each, in the order of the words above."""
        words = ("attempted", "acknowledged", "executed", "lost", "duplicated", "recovered", "unexpected", "stuck")
        return {word: len(getattr(self, word)) for word in words}

    def __str__(self) -> str:
        return "  ".join(f"{word} {count}" for word, count in self.counts().items())


def account(
    attempted: Iterable[str], acknowledged: Iterable[str], ended: Iterable[str], stuck: Iterable[str] = ()
) -> Account:
    """The account of what was sent and what `ended`, which names a task once for each time that it ended."""
    return Account(frozenset(attempted), frozenset(acknowledged), Counter(ended), tuple(stuck))


def stuck_tags(client: Redis, keys: Keys) -> list[str]:
    """Delivery tags that are taken and have no owner who is registered and connected. `client` decodes its answers.

    A stopped process (SIGSTOP) counts as an owner; a worker that reconnects does not for that moment: look again.
    """
    held = {str(tag): json.loads(record) for tag, record in client.hgetall(keys.held).items()}
    acting = client.hgetall(keys.incarnations)
    client_names = {
        worker: json.loads(record)["client_name"] for worker, record in client.hgetall(keys.workers).items()
    }
    connected = client_list(client).names

    def is_alive(worker: str, incarnation: str) -> bool:
        return acting.get(worker) == incarnation and client_names.get(worker) in connected

    tags = {*held, *map(str, client.hkeys(keys.unacked))}
    return sorted(tag for tag in tags if tag not in held or not is_alive(*held[tag][:2]))


class Progress:
    """`ended` counts ends by task, `first_start` is when each began first, `running` what each worker has begun."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.ended: Counter[str] = Counter()
        self.first_start: dict[str, float] = {}
        self.running: defaultdict[str, set[str]] = defaultdict(set)

    def look(self) -> None:
        """Reads on. A line that is still being written is left for the next look."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as notes:
            notes.seek(self._offset)
            fresh = notes.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            one = json.loads(line)
            task, worker = one["task"], one["worker"]
            if one["event"] == "start":
                self.first_start.setdefault(task, one["at"])
                self.running[worker].add(task)
            else:
                self.ended[task] += one["event"] == "end"
                self.running[worker].discard(task)
