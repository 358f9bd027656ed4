"""To lead the fleet while something is decided and done: one at a time, and fenced.

The broker's clock alone says how long a lease lives. Its holder trusts it for less, counted by its own clock from
before it asked: so it stops before another may begin. A holder that was paused cannot know for how long; its next write
names a term that is no longer the lease's, and is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from uuid import uuid4

from morag_queue.broker.contract import Broker
from morag_queue.core.model import Lease
from morag_queue.errors import BrokerUnreachable, LeaseHeld, LeaseLost

LEASE_S = 15.0
"""How long a lease lives: so long the fleet is without a leader when one dies."""


_TRUSTED = 0.6


_RENEWED = 0.3


Clock = Callable[[], float]


class Leader:
    """A lease and how far it is trusted. Made by `lead`."""

    def __init__(self, broker: Broker, lease: Lease, asked_at: float, seconds: float, clock: Clock) -> None:
        self._broker, self._asked_at, self._seconds, self._clock = broker, asked_at, seconds, clock
        self.lease = lease

    @property
    def term(self) -> str:
        """What every write of this leader names."""
        return str(self.lease.term)

    @property
    def is_trusted(self) -> bool:
        """Whether the lease is still surely the holder's, as far as its own clock can tell."""
        return self._clock() - self._asked_at < _TRUSTED * self._seconds

    def keep(self) -> None:
        """Renews the lease when a third of its life has passed. Raises LeaseLost when it has another holder."""
        asked_at = self._clock()
        if asked_at - self._asked_at < _RENEWED * self._seconds:
            return
        with self._broker.translated():
            renewed = self._broker.leases.renew(self.lease, self._seconds)
        if renewed is None:
            raise LeaseLost
        self.lease, self._asked_at = renewed, asked_at

    def step_down(self) -> bool:
        """Gives the lease up, so that another need not wait for its end. False when it was lost before."""
        with self._broker.translated():
            return self._broker.leases.give_up(self.lease)


def lead(
    broker: Broker, who: str, verb: str, *, holder: str = "", seconds: float = LEASE_S, clock: Clock = monotonic
) -> Leader:
    """Takes the lease. Raises LeaseHeld, which says who has it."""
    name, asked_at = holder or str(uuid4()), clock()
    with broker.translated():
        lease = broker.leases.take(name, who, verb, seconds)
        if lease.holder != name:
            raise LeaseHeld(_held_by(lease, broker.now()))
    return Leader(broker, lease, asked_at, seconds, clock)


@contextmanager
def leading(
    broker: Broker, who: str, verb: str, *, seconds: float = LEASE_S, clock: Clock = monotonic
) -> Iterator[Leader]:
    """Leads for the time of the block. Raises LeaseHeld."""
    leader = lead(broker, who, verb, seconds=seconds, clock=clock)
    try:
        yield leader
    finally:
        with suppress(BrokerUnreachable):  # then it runs out by itself; what went wrong in the block is what counts
            leader.step_down()


def _held_by(lease: Lease, now: float) -> str:
    since = max(now - lease.since, 0.0)
    return (
        f"{lease.who} leads the fleet by `{lease.verb}` for {since:.0f} s (term {lease.term}): nothing was changed; "
        "wait for it or stop it, and see with --dry-run what there would be to do"
    )
