"""The account of a run under fault, from the producer's notes, the events that the tasks recorded, and the server.

The words are those of `morag_queue.local.account`, and one more:

lost  acknowledged, never executed, and nowhere on the server
left  acknowledged, never executed, and still on the server: in a lane, in `unacked`, or among the dead letters
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from redis import Redis

from morag_queue.broker.keys import Keys
from morag_queue.local.account import Account, stuck_tags


@dataclass(frozen=True, slots=True)
class FaultAccount(Account):
    """Task ids; `str()` gives one line of all counts."""

    left: frozenset[str] = frozenset()

    @property
    def lost(self) -> frozenset[str]:
        return self.acknowledged - self.executed.keys() - self.left

    def counts(self) -> dict[str, int]:
        return {**Account.counts(self), "left": len(self.left)}

    def broken_promises(self, may_run_twice: Collection[str] = (), may_be_left: Collection[str] = ()) -> list[str]:
        """What breaks the promise of at-least-once delivery, in words; empty if it is kept.

        `may_run_twice`: tasks that were running on a worker that died or was fenced. `may_be_left`: quarantined ones.
        """
        unexplained = self.duplicated - set(may_run_twice)
        found = {
            "lost": self.lost,
            "stuck": self.stuck,
            "unexpected": self.unexpected,
            "left": self.left - set(may_be_left),
        }
        found["duplicated without cause"] = unexplained
        return [f"{word} {len(ids)}: {', '.join(sorted(ids)[:3])}" for word, ids in found.items() if ids]


def account_of(
    client: Redis, keys: Keys, *, attempted: Iterable[str], acknowledged: Iterable[str], ended: Iterable[str]
) -> FaultAccount:
    """Account for a fleet at rest. `ended` names a task once for each of its ends; `client` must decode answers."""
    executed, confirmed = Counter(ended), frozenset(acknowledged)
    left = ids_on_server(client, keys, confirmed - executed.keys())
    return FaultAccount(frozenset(attempted), confirmed, executed, tuple(stuck_tags(client, keys)), left)


def ids_on_server(client: Redis, keys: Keys, task_ids: Collection[str]) -> frozenset[str]:
    """Those of the tasks of which the server has a message. It looks for the text: a message may be malformed."""
    if not task_ids:
        return frozenset()
    records = [*client.hvals(keys.unacked), *client.hvals(keys.dead)]
    lanes = [key for key in client.scan_iter(count=1000, _type="list") if not key.startswith(keys.ended(""))]
    lists = [text for key in lanes for text in client.lrange(key, 0, -1)]
    texts = "\n".join(map(str, [*records, *lists]))
    return frozenset(task_id for task_id in task_ids if task_id in texts)
