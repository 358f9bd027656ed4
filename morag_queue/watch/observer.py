"""Observe the fleet between turns: poll it, detect changes, and collect evidence for the next turn."""

from collections.abc import Iterable, Mapping

from morag_queue.broker.poll import FleetPoller
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.fleet_poll import ChangeKind, FleetChange, FleetPoll, PollHistory, detect_changes
from morag_queue.core.model import WorkerInfo
from morag_queue.core.snapshot import Snapshot

from .events import EventSink
from .report import StallDetector, report_changes
from .turn import PollEvidence


class FleetObserver:
    """Polls one fleet and reports its changes. A new leader needs a new observer, without old observations."""

    def __init__(self, broker: RedisBroker, emit: EventSink) -> None:
        self._broker, self._emit, self._policy = broker, emit, broker.settings.policy
        self._poller = FleetPoller(broker.client, broker.keys)
        self._history = PollHistory()
        self._infos: Mapping[str, WorkerInfo] = {}
        self._stalls = StallDetector(emit)

    @property
    def has_absent_workers(self) -> bool:
        return bool(self._history.absent)

    def poll(self) -> tuple[FleetChange, ...]:
        """Poll once, and report and return the changes."""
        self._history, changes = detect_changes(self._history, self._poll(), self._infos, self._policy)
        report_changes(self._emit, changes, self._history)
        self._stalls.after_poll(self._history)
        return changes

    def start_from(self, snapshot: Snapshot) -> None:
        """Poll as if the fleet had been polled since the server's start.

        A single turn has no earlier polls, so a worker that is not connected now counts as absent since then.
        """
        self._remember(snapshot)
        first = self._poll()
        self._history, _ = detect_changes(PollHistory(since=first.up_since), first, self._infos, self._policy)

    def interrupted(self) -> None:
        """Forget absences after a failed poll."""
        self._history = self._history.interrupted()

    def evidence(self, flapping: Mapping[str, int]) -> PollEvidence:
        """Return the evidence for a turn; for `flapping` see `flapping_starts`."""
        absent = self._history.proved_absent(self._infos)
        return PollEvidence(absent, self._history.silent(self._infos, self._policy), flapping)

    def after_turn(self, snapshot: Snapshot) -> None:
        """Remember the workers of a turn's snapshot and report those that have stalled."""
        self._remember(snapshot)
        self._stalls.after_turn(snapshot, self._history)

    def _poll(self) -> FleetPoll:
        with self._broker.translated():
            return self._poller.poll()

    def _remember(self, snapshot: Snapshot) -> None:
        self._infos = {view.worker: view.info for view in snapshot.workers}


def flapping_starts(changes: Iterable[FleetChange]) -> dict[str, int]:
    """Return the number of starts of each flapping worker among the changes."""
    return {change.worker: change.count for change in changes if change.kind is ChangeKind.FLAPPING}
