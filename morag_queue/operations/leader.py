"""Lead the fleet: one process at a time plans and applies, and the term of its lease fences its writes.

A lease ends by the broker's clock alone. The holder trusts it for a shorter time, measured by its own clock from before
its request, so it stops before another process can take the lease. A holder that was suspended for longer than that
still writes with its old term, and the broker rejects the write.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from uuid import uuid4

from morag_queue.broker.contract import Broker
from morag_queue.core.model import Lease
from morag_queue.core.words import span
from morag_queue.errors import BrokerUnreachable, LeaseHeld, LeaseLost

LEASE_S = 15.0
"""Lifetime of a lease in seconds: the longest time without a leader after the death of one."""

_TRUSTED = 0.6
"""Share of its lifetime for which the holder trusts its lease."""

_RENEWED = 0.3
"""Share of its lifetime after which a lease is renewed."""

Clock = Callable[[], float]


class Leader:
    """A lease, and whether it can still be trusted. Created by `lead`."""

    def __init__(self, broker: Broker, lease: Lease, asked_at: float, seconds: float, clock: Clock) -> None:
        self._broker, self._asked_at, self._seconds, self._clock = broker, asked_at, seconds, clock
        self.lease = lease

    @property
    def term(self) -> str:
        """The term that each write of this leader carries."""
        return str(self.lease.term)

    @property
    def is_trusted(self) -> bool:
        """Return whether the lease is certainly still held, by the holder's own clock."""
        return self._clock() - self._asked_at < _TRUSTED * self._seconds

    def keep(self) -> None:
        """Renew the lease once a third of its lifetime has passed. Raises LeaseLost if another process holds it."""
        asked_at = self._clock()
        if asked_at - self._asked_at < _RENEWED * self._seconds:
            return
        with self._broker.translated():
            renewed = self._broker.leases.renew(self.lease, self._seconds)
        if renewed is None:
            raise LeaseLost
        self.lease, self._asked_at = renewed, asked_at

    def step_down(self) -> bool:
        """Give the lease up, so that the next leader need not wait. Return False if it was lost before."""
        with self._broker.translated():
            return self._broker.leases.give_up(self.lease)


def lead(
    broker: Broker, who: str, verb: str, *, holder: str = "", seconds: float = LEASE_S, clock: Clock = monotonic
) -> Leader:
    """Take the lease. Raises LeaseHeld with the holder and the term."""
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
    """Lead for the duration of the block. Raises LeaseHeld."""
    leader = lead(broker, who, verb, seconds=seconds, clock=clock)
    try:
        yield leader
    finally:
        with suppress(BrokerUnreachable):  # the lease expires by itself; an error of the block matters more
            leader.step_down()


def _held_by(lease: Lease, now: float) -> str:
    led = span(max(now - lease.since, 0.0))
    return (
        f"{lease.who} leads the fleet with `{lease.verb}` (term {lease.term}, for {led}): nothing was changed; "
        "wait for it or stop it, or use --dry-run to see what would change"
    )
