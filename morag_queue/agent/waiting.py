"""What a channel asks the broker next: to claim a message, or to wait for one. Pure: no clock, no connection.

Of the idle workers of a fleet that read the same shared lanes, a push wakes only one, their tracker: it alone has the
server track these lanes. The others have it track a key of their own, their bell (and their own lanes). Whoever takes a
message while it was waiting appoints the next tracker, in the same step, by ringing its bell; if more work waits, it
wakes another worker too. So a message costs the server the same in a large fleet as in a small one.

A tracker that was killed or stopped does not answer. Therefore each waiting worker also looks again by itself, the less
often the more workers wait; one that finds work so replaces the tracker (`broker/lua/claim.lua`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

TRACKER_SECONDS = 1.0
"""A tracker looks again after this time, which renews its record (2.5 s, `broker/lua/lib/waiting.lua`)."""

WAITER_SECONDS = 0.75
"""Any other waiting worker looks again after this time, or"""

WAITER_SECONDS_EACH = 0.004
"""after this time for each worker that waits: together they send at most 250 claims a second."""


class Request(Enum):
    """What a channel sends."""

    CLAIM = "claim"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class NothingToClaim:
    """The answer to a claim that took nothing, see `broker/lua/claim.lua`."""

    why: str
    waiting_workers: int = 0
    own_left: int = 0
    shared_left: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether this worker may claim nothing from shared lanes."""
        return self.why == "closed"


@dataclass(slots=True)
class Waiting:
    """The state of one channel. `bell` is the key that wakes this worker alone.

    `is_registered`: the broker counts this worker among those that wait. `is_armed`: a change of what it waits for will
    wake it. `was_idle`: when it last asked to wait, there was no work. `seen` is the last answer to a claim that took
    nothing.
    """

    bell: bytes
    next: Request = Request.CLAIM
    is_registered: bool = False
    is_armed: bool = False
    is_tracker: bool = False
    was_idle: bool = False
    seen: NothingToClaim = NothingToClaim("untracked")

    def took(self) -> None:
        """A claim took a message. A worker that was idle until now will hardly find a second one."""
        self.next = Request.WAIT if self.is_registered and self.was_idle else Request.CLAIM
        self.is_registered = self.is_armed = False

    def found_nothing(self, seen: NothingToClaim) -> bool:
        """A claim took nothing. Return whether the worker now waits: it does if it still is where it was before."""
        self.seen = seen
        waits = self.is_armed and not self.is_tracker and seen.why != "untracked"
        self.next = Request.CLAIM if waits else Request.WAIT
        return waits

    def answered(self, answer: str) -> bool:
        """The broker answered to a `wait`. Return whether the worker now waits."""
        self.next = Request.CLAIM
        self.is_registered = not self.seen.is_closed
        self.is_tracker = answer == "tracking"
        self.is_armed = self.was_idle = answer != "claim"
        return self.is_armed

    def woken(self, keys: Collection[bytes] | None) -> None:
        """One of these keys has changed; None: the server forgot all of them."""
        self.is_armed = False
        rung = keys is not None and set(keys) == {self.bell}
        self.next = Request.WAIT if rung and not self.seen.is_closed else Request.CLAIM

    @property
    def recheck_seconds(self) -> float:
        """The time after which a waiting worker claims again."""
        if self.is_tracker:
            return TRACKER_SECONDS
        return max(WAITER_SECONDS, WAITER_SECONDS_EACH * self.seen.waiting_workers)
