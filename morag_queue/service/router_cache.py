"""A router that is cheap to consult for each task."""

import threading
import time
from collections.abc import Callable, Mapping
from time import monotonic
from typing import NamedTuple

from morag_queue.broker.fleet_reader import Pause
from morag_queue.core.routing.feasibility import WorkerLoad
from morag_queue.core.routing.router import Router
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import MoragQueueError
from morag_queue.settings import Settings

REFRESH_SECONDS = 2.0
"""Age from which a router is refreshed: one heartbeat interval."""

STALE_SECONDS = 10.0
"""Age from which a producer does not use a router. By then a reading has failed whose server did not answer, with the
default timeouts; so a call does not wait for it."""

_PAUSE_SECONDS = 0.002
"""Pause of the thread after each part of its work, in which other threads get the interpreter."""


class _Entry(NamedTuple):
    """The router of one snapshot. `read_at` is on the monotonic clock; add `clock_offset` for the server's clock."""

    router: Router
    read_at: float
    clock_offset: float


class RouterCache:
    """Keeps the router of a recent snapshot, for the threads of one process.

    The first call reads the fleet itself. A call that finds the router older than `REFRESH_SECONDS` uses it, and starts
    a thread that builds the next one and ends. So an idle process has no such thread, and a forked one needs nothing
    from its parent. If the thread fails or is late, a call reads the fleet itself as soon as the router is older than
    `stale_seconds`.

    Hold `lock` around a call of `router` and the use of its result: a router counts the tasks that it places.
    """

    def __init__(
        self,
        observe: Callable[[Pause], tuple[Snapshot, Mapping[str, WorkerLoad]]],
        settings: Settings,
        *,
        stale_seconds: float = REFRESH_SECONDS,
    ) -> None:
        """`observe` reads the fleet and calls its argument between parts of its work, each of about a millisecond.

        With `stale_seconds` of at most `REFRESH_SECONDS` nothing is read in the background.
        """
        self._observe, self._settings, self._stale_seconds = observe, settings, stale_seconds
        self._entry: _Entry | None = None
        self._refresh_at = 0.0
        self._thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def router(self) -> Router:
        """Return the router of a recent snapshot. Raises the errors of `observe` where it calls it itself."""
        now = monotonic()
        entry = self._entry
        if entry is None or now - entry.read_at > self._stale_seconds:
            return self._refresh(lambda: None)
        if now > self._refresh_at and (self._thread is None or not self._thread.is_alive()):
            self._refresh_in_background()
        return entry.router

    def now(self) -> float:
        """Return the server's clock in seconds since the epoch, extrapolated from the last snapshot."""
        return monotonic() + (self._entry.clock_offset if self._entry else 0.0)

    def _refresh(self, pause: Pause) -> Router:
        started_at = monotonic()
        self._refresh_at = started_at + REFRESH_SECONDS
        snapshot, loads = self._observe(pause)
        router = Router(snapshot, self._settings.policy, self._settings.queues, loads=loads)
        # Its age counts from the end: otherwise an attempt that took long would be followed by the next one at once.
        now = monotonic()
        self._entry, self._refresh_at = _Entry(router, now, snapshot.taken_at - started_at), now + REFRESH_SECONDS
        return router

    def _refresh_in_background(self) -> None:
        self._thread = threading.Thread(target=self._try_to_refresh, name="morag-queue-routing", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the process ends, or has as many threads as it may
            self._refresh_at = monotonic() + REFRESH_SECONDS

    def _try_to_refresh(self) -> None:
        try:
            self._refresh(lambda: time.sleep(_PAUSE_SECONDS))
        except (MoragQueueError, ValueError):
            return  # a later call that reads the fleet itself will report it
