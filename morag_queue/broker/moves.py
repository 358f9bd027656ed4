"""Messages from lane to lane, inside Redis: no payload travels through the client."""

from dataclasses import dataclass

from redis import Redis

from . import scripts
from .keys import Keys

CHUNK = 250
"""Messages a call: about 1 ms of the server's time, so that a worker's claim is never kept waiting for long."""
_PIPELINED = 16
"""Calls on their way at once: the server is never idle between two of them."""


@dataclass(frozen=True, slots=True)
class Moved:
    """`left` are messages not of the expected form: they stayed where they are."""

    moved: int
    left: int


class Moves:
    """Moves on one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._move = scripts.script(client, "move")

    def lane(self, source: str, target: str, level: int, count: int, *, term: str = "") -> Moved:
        """Moves up to `count` of the oldest messages of one lane at one level; order and level are kept.

        Safe to run again after it was cut off anywhere. What arrives in the lane meanwhile stays there.
        """
        keys = [self._keys.list(source, level), self._keys.list(target, level), self._keys.lease]
        moved = left = 0
        while moved + left < count:
            calls = min(-(-(count - moved - left) // CHUNK), _PIPELINED if left == 0 else 1)
            pipe = self._client.pipeline(transaction=False)
            asked = 0
            for _ in range(calls):
                size = min(CHUNK, count - moved - left - asked)
                self._move(keys=keys, args=[size, source, target, left, term], client=pipe)
                asked += size
            answers = pipe.execute()
            moved += sum(answer[0] for answer in answers)
            left += sum(answer[1] for answer in answers)
            if sum(answers[-1]) == 0:
                break
        return Moved(moved, left)
