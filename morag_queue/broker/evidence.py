"""What the server knows of who is connected: the proof that a worker is dead, and the means to make it so."""

import os
import re
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from redis import Redis

from . import scripts
from .keys import Keys

OURS = "mq."
"""How the CLIENT LIST names of our commands and of workers with the agent begin."""
_NAME = re.compile(rb" name=(\S+)")
# Where a Celery worker waits for messages or for remote control.
_CONSUMES = re.compile(rb" (?:p?sub=[1-9]|cmd=(?:brpop|p?subscribe)\b)")


@dataclass(frozen=True, slots=True)
class Connected:
    """`names`: how many connections bear each name. `strangers`: those that look like workers without the agent."""

    names: Counter[str]
    strangers: int


class Evidence:
    """Connections of one server."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._fence = scripts.script(client, "fence")

    def connected(self) -> Connected:
        """Who is connected now. A killed process is out of the list within milliseconds, a stopped one stays in it."""
        # Not through redis-py's parser, which makes a mapping of thirty fields of each of maybe 60,000 lines.
        listed: bytes = self._client.execute_command("CLIENT", "LIST")
        lines = listed.splitlines()
        names = [match[1].decode() if (match := _NAME.search(line)) else "" for line in lines]
        return Connected(
            names=Counter(name for name in names if name),
            strangers=sum(
                not name.startswith(OURS) and _CONSUMES.search(line) is not None
                for name, line in zip(names, lines, strict=True)
            ),
        )

    def process_is_gone(self, host: str, pid: int) -> bool:
        """Whether a process of this machine has ended; False where it is on another one, or not known."""
        if host != socket.gethostname() or pid <= 0:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # someone else's: it is there
        return False

    def kill(self, client_name: str) -> int:
        """Closes every connection of that name. Returns how many there were."""
        if not client_name:
            return 0  # all that have no name would go
        ids = [one["id"] for one in self._client.client_list() if one["name"] == client_name]
        pipe = self._client.pipeline(transaction=False)
        for number in ids:
            pipe.client_kill_filter(_id=number)
        return sum(map(int, pipe.execute()))

    def fence(self, worker: str, incarnation: str, *, term: str = "") -> str:
        """Lets nobody act in that name until someone registers anew. Returns '' or who acts in it meanwhile."""
        keys = [self._keys.incarnations, self._keys.lease]
        answer: bytes = self._fence(keys=keys, args=[worker, incarnation, term])
        return answer.decode()

    def attempts(self, task_ids: Iterable[str]) -> dict[str, int]:
        """How many workers have died over each of these tasks; the others are not in the answer."""
        ids = list(task_ids)
        found = self._client.hmget(self._keys.attempts, ids) if ids else []
        return {one: int(count) for one, count in zip(ids, found, strict=True) if count}
