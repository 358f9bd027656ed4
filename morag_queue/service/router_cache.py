"""A router that is cheap to consult for each task."""

from collections.abc import Callable
from time import monotonic

from morag_queue.core.routing.router import Router
from morag_queue.core.snapshot import Snapshot
from morag_queue.settings import Settings

SNAPSHOT_SECONDS = 2.0
"""Maximum age of the snapshot: one heartbeat interval. A snapshot for each task would double its cost."""


class RouterCache:
    """Keeps a router until its snapshot is too old. Not thread-safe."""

    def __init__(self, observe: Callable[[], Snapshot], settings: Settings) -> None:
        self._observe, self._settings = observe, settings
        self._router: Router | None = None
        self._renewed_at = float("-inf")
        self._clock_offset = 0.0

    def router(self) -> Router:
        """Return the router of a current snapshot. Raises the errors of `observe`."""
        now = monotonic()
        if self._router is None or now - self._renewed_at > SNAPSHOT_SECONDS:
            snapshot = self._observe()
            self._router = Router(snapshot, self._settings.policy, self._settings.queues)
            self._renewed_at, self._clock_offset = now, snapshot.taken_at - now
        return self._router

    def now(self) -> float:
        """Return the server's clock in seconds since the epoch, extrapolated from the last snapshot."""
        return self._clock_offset + monotonic()
