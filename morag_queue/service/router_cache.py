"""A router that is cheap to consult for each task."""

import time
from collections.abc import Callable, Mapping
from threading import Lock, Thread
from time import monotonic
from typing import NamedTuple

from morag_queue.broker.fleet_reader import Pause
from morag_queue.core.routing.feasibility import WorkerLoad
from morag_queue.core.routing.router import Router
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import MoragQueueError
from morag_queue.settings import Settings

RENEW_SECONDS = 2.0
"""Age from which a picture is renewed: one heartbeat interval."""

STALE_SECONDS = 10.0
"""Age from which a producer does not use a picture: the call reads the fleet itself. Longer than the timeouts of the
broker's connection, so that no call waits for a server that does not answer."""

_PAUSE_SECONDS = 0.002
"""Pause of the thread after each part of its work. While it works, another thread may wait for the interpreter."""


class _Picture(NamedTuple):
    """The router of one snapshot. `read_at` is on the monotonic clock; add `clock_offset` for the server's clock."""

    router: Router
    read_at: float
    clock_offset: float


class RouterCache:
    """Keeps the router of a recent snapshot, for the threads of one process.

    The first call reads the fleet itself. A call that finds the picture older than `RENEW_SECONDS` uses it and starts a
    thread that reads the next one and ends. So an idle process has no such thread, and a forked one needs nothing from
    its parent. If the thread fails or is late, a call reads the fleet itself, as soon as the picture is older than
    `stale_seconds`.

    Hold `lock` around a call of `router` and the use of its result: a router counts the tasks that it places.
    """

    def __init__(
        self,
        observe: Callable[[Pause], tuple[Snapshot, Mapping[str, WorkerLoad]]],
        settings: Settings,
        *,
        stale_seconds: float = RENEW_SECONDS,
    ) -> None:
        """`observe` reads the fleet and calls its argument between parts of its work, each of about a millisecond.

        With `stale_seconds` of at most `RENEW_SECONDS` nothing is read in the background.
        """
        self._observe, self._settings, self._stale_seconds = observe, settings, stale_seconds
        self._picture: _Picture | None = None
        self._renew_at = 0.0
        self._thread: Thread | None = None
        self.lock = Lock()

    def router(self) -> Router:
        """Return the router of a recent snapshot. Raises the errors of `observe` where it calls it itself."""
        now = monotonic()
        picture = self._picture
        if picture is None or now - picture.read_at > self._stale_seconds:
            return self._renew(lambda: None).router
        if now > self._renew_at and (self._thread is None or not self._thread.is_alive()):
            self._renew_in_background()
        return picture.router

    def now(self) -> float:
        """Return the server's clock in seconds since the epoch, extrapolated from the last snapshot."""
        return monotonic() + (self._picture.clock_offset if self._picture else 0.0)

    def _renew(self, pause: Pause) -> _Picture:
        read_at = monotonic()
        self._renew_at = read_at + RENEW_SECONDS
        snapshot, loads = self._observe(pause)
        clock_offset = snapshot.taken_at - monotonic()
        router = Router(snapshot, self._settings.policy, self._settings.queues, loads=loads)
        picture = _Picture(router, read_at, clock_offset)
        if self._picture is None or self._picture.read_at < read_at:
            self._picture = picture
        return picture

    def _renew_in_background(self) -> None:
        self._thread = Thread(target=self._try_to_renew, name="morag-queue-routing", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the process ends, or has as many threads as it may
            self._renew_at = monotonic() + RENEW_SECONDS

    def _try_to_renew(self) -> None:
        try:
            self._renew(lambda: time.sleep(_PAUSE_SECONDS))
        except (MoragQueueError, ValueError):
            return  # a later call that reads the fleet itself will report it
