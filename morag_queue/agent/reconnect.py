"""How long a worker waits before it connects again.

A server that accepts connections and refuses what a worker writes first (out of memory) ends each connection at once.
Celery then connects five times a second.
"""

from collections.abc import Callable
from time import monotonic, sleep

from celery.worker.state import maybe_shutdown

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 5.0
STEADY_SECONDS = 10.0
"""A connection that lasted as long was a good one: the next is made at once."""

_STEP_SECONDS = 0.1


class ReconnectPause:
    """Takes the place of the `restart_state` of Celery's consumer, which calls `step` before it connects again."""

    def __init__(self, clock: Callable[[], float] = monotonic, sleep: Callable[[float], None] = sleep) -> None:
        self._clock, self._sleep = clock, sleep
        self._seconds, self._connected_at = 0.0, -STEADY_SECONDS

    def step(self) -> None:
        """Wait if the last connection was short. Raises WorkerShutdown as soon as the worker is told to stop."""
        now = self._clock()
        is_steady = now - self._connected_at >= STEADY_SECONDS
        self._seconds = 0.0 if is_steady else min(2 * self._seconds or FIRST_SECONDS, LONGEST_SECONDS)
        until = now + self._seconds
        while self._clock() < until:
            maybe_shutdown()
            self._sleep(_STEP_SECONDS)
        self._connected_at = self._clock()
