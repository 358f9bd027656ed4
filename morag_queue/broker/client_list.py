"""CLIENT LIST: the connections of a server, and which of them look like workers without the agent.

The text is searched rather than parsed by redis-py, which would make a mapping of thirty fields of each of up to 60,000
lines, several times a second.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

OURS = "mq."
"""Prefix of the connection names of our commands and of workers with the agent."""

_NAME = re.compile(rb" name=(\S+)")
_CONNECTION = re.compile(rb"id=(\d+)(?: | .* )db=(\d+)")

# A Celery worker waits for messages with BRPOP and for remote control with PSUBSCRIBE.
_WAITS = re.compile(rb" (?:p?sub=[1-9]|cmd=(?:brpop|p?subscribe)\b)")
_LISTENS = re.compile(rb" psub=[1-9]")


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """One connection with a name."""

    connection_id: int
    name: str
    database: int


@dataclass(frozen=True, slots=True)
class ClientList:
    """The answer of CLIENT LIST. A killed process is gone from it within milliseconds; a stopped one stays in it."""

    text: bytes = b""

    @property
    def names(self) -> Counter[str]:
        """Number of connections by name."""
        return Counter(name.decode(errors="replace") for name in _NAME.findall(self.text))

    @property
    def agentless_workers(self) -> int:
        """Workers without the agent, at least; monitors are counted too.

        Each has one connection that listens on the remote-control channel. Those without remote control only wait for
        messages, with several connections: where none listens, they count as one.
        """
        return self._count_unnamed(_LISTENS) or min(self._count_unnamed(_WAITS), 1)

    def named(self) -> Iterator[ClientConnection]:
        """The connections that have a name."""
        for line in self.text.splitlines():
            name, numbers = _NAME.search(line), _CONNECTION.match(line)
            if name and numbers:
                yield ClientConnection(int(numbers[1]), name[1].decode(errors="replace"), int(numbers[2]))

    def _count_unnamed(self, pattern: re.Pattern[bytes]) -> int:
        found = (line for line in self.text.splitlines() if pattern.search(line))
        return sum(not ((name := _NAME.search(line)) and name[1].startswith(OURS.encode())) for line in found)


def client_list(client: "Redis") -> ClientList:
    """Read the list now. Raises NoPermissionError for a login that may not."""
    return parsed(request(client))


def request(client: Any) -> Any:
    """Send CLIENT LIST; `client` may be a pipeline. Two words keep redis-py's parser away."""
    return client.execute_command("CLIENT", "LIST")


def parsed(answer: Any) -> ClientList:
    """An answer to `request`, of a client that decodes or not."""
    return ClientList(answer if isinstance(answer, bytes) else str(answer).encode())
