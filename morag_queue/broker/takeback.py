"""Messages out of a worker's hands, back to a lane: for failover, for the sweep, and for a worker that gives back."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from uuid import uuid4

from redis import Redis

from . import scripts
from .keys import Keys

Outcome: TypeAlias = Literal["moved", "gone", "early", "foreign", "quarantined", "cancelled"]
REVOKED_S = 3 * 3600
"""How long a cancelled tag is remembered: as long as a worker of Celery's remembers what was revoked."""
_BURST = 250
"""Calls on their way at once."""


@dataclass(frozen=True, slots=True)
class Return:
    """One message to be put first in `lane`. `incarnation` is who is believed to hold it, '' for nobody.

    `max_deaths`: how many owners may die over the task before it is quarantined; None when this is none. With
    `untouched_since` (seconds, server's clock) it stays where it is if a worker has touched it since. `eta` is written
    into a message that has none.
    """

    tag: str
    incarnation: str
    task_id: str
    lane: str
    level: int
    why: str = ""
    max_deaths: int | None = None
    untouched_since: float | None = None
    eta: str = ""


class TakeBacks:
    """Returns on one fleet; each is one atomic step, and safe to try again."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._script = scripts.script(client, "takeback")

    def apply(self, returns: Iterable[Return], *, term: str = "") -> list[Outcome]:
        """What became of each, in order; each goes before what waits in its lane. ResponseError: a stale term."""
        wanted: Sequence[Return] = list(returns)
        outcomes: list[Outcome] = []
        for start in range(0, len(wanted), _BURST):
            pipe = self._client.pipeline(transaction=False)
            for one in wanted[start : start + _BURST]:
                self._script(keys=self._names(one), args=self._arguments(one, term), client=pipe)
            outcomes += (answer.decode() for answer in pipe.execute())
        return outcomes

    def revoke(self, tag: str) -> None:
        """Whoever takes it back ends it as cancelled, instead of giving it to somebody else."""
        now = time.time()
        pipe = self._client.pipeline(transaction=False)
        pipe.zremrangebyscore(self._keys.revoked, "-inf", now - REVOKED_S)
        pipe.zadd(self._keys.revoked, {tag: now})
        pipe.execute()

    def _names(self, one: Return) -> list[str]:
        k = self._keys
        return [
            k.unacked, k.unacked_index, k.held, k.attempts, k.list(one.lane, one.level), k.task(one.task_id), k.dead,
            k.lease, k.graves, k.revoked,
        ]  # fmt: skip

    def _arguments(self, one: Return, term: str) -> list[str | int]:
        return [
            one.tag, one.incarnation, str(uuid4()), one.lane, one.level,
            "" if one.max_deaths is None else one.max_deaths, one.why,
            "" if one.untouched_since is None else repr(one.untouched_since), one.eta, self._retention, term,
        ]  # fmt: skip
