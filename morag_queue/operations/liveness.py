"""Prove that workers are dead: read their connections, and ask those that are not proved dead for an answer."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING

from morag_queue.core.recovery.liveness import (
    Liveness,
    LivenessEvidence,
    LivenessVerdict,
    assess_liveness,
    with_connections,
)
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import may_be_dead

if TYPE_CHECKING:
    from morag_queue.broker.contract import Broker
    from morag_queue.broker.redis import RedisBroker

_RECONNECT_SECONDS = 0.1
"""A live worker whose connections were cut opens new ones within this time (measured)."""


def count_connections(broker: "Broker", snapshot: Snapshot, pause: Callable[[float], None] = sleep) -> Snapshot:
    """Return the snapshot with the number of connections of workers whose heartbeat is overdue, see `WorkerView`.

    Costs nothing while all heartbeats are on time. A worker without a connection is looked for again after the time
    that a reconnect takes.
    """
    if not any(may_be_dead(view, snapshot.taken_at) for view in snapshot.workers):
        return snapshot
    counted = _count_once(broker, snapshot)
    if any(view.connections == 0 for view in counted.workers):
        pause(_RECONNECT_SECONDS)
        counted = _count_once(broker, snapshot)
    return counted


def _count_once(broker: "Broker", snapshot: Snapshot) -> Snapshot:
    seen = broker.connections()
    return snapshot if seen is None else with_connections(snapshot, seen, broker.settings.policy)


@dataclass(frozen=True, slots=True)
class FailoverTarget:
    """A worker, and the verdict on its liveness.

    `incarnation` is the run that was judged: empty for a name that never registered, "fenced" for a fenced worker. A
    verdict that is not certain may be due to a lost connection.
    """

    verdict: LivenessVerdict
    client_name: str
    incarnation: str
    is_certain: bool

    @property
    def worker(self) -> str:
        return self.verdict.worker

    @property
    def is_dead(self) -> bool:
        return self.verdict.liveness is Liveness.DEAD


class LivenessCheck:
    """Judges the liveness of workers. `pause` waits the given seconds."""

    def __init__(self, broker: "RedisBroker", pause: Callable[[float], None]) -> None:
        self._broker, self._pause = broker, pause

    def judge(self, snapshot: Snapshot, names: Iterable[str]) -> list[FailoverTarget]:
        """Judge by connections. An uncertain death is checked again once the worker has had time to reconnect."""
        workers = list(names)
        targets = self._judge_once(snapshot, workers)
        if any(target.is_dead and not target.is_certain for target in targets):
            self._pause(_RECONNECT_SECONDS)
            targets = self._judge_once(snapshot, workers)
        return targets

    def ask(self, snapshot: Snapshot, targets: list[FailoverTarget]) -> list[FailoverTarget]:
        """Ask the workers that are not proved dead for an answer on the control channel."""
        silent = [target.worker for target in targets if not target.is_dead]
        if not silent:
            return targets
        nodes = [view.info.node for worker in silent if (view := snapshot.worker_by_id.get(worker))]
        # Without a list of nodes every worker is asked, and the wait for answers takes a whole second.
        answers = self._broker.control.ping(nodes if len(nodes) == len(silent) else None)
        answered = {node.partition("@")[0] for node in answers}
        judged = {target.worker: target for target in self._judge_once(snapshot, silent, answered)}
        return [judged.get(target.worker, target) for target in targets]

    def _judge_once(
        self, snapshot: Snapshot, workers: Sequence[str], answered: Collection[str] | None = None
    ) -> list[FailoverTarget]:
        with self._broker.translated():
            connections = self._broker.evidence.connected().names if workers else {}
        return [self._target(snapshot, worker, connections, answered) for worker in workers]

    def _target(
        self, snapshot: Snapshot, worker: str, connections: Mapping[str, int], answered: Collection[str] | None
    ) -> FailoverTarget:
        view = snapshot.worker_by_id.get(worker)
        client_name = view.info.client_name if view else ""
        evidence = LivenessEvidence(
            connections=connections.get(client_name, 0),
            answered=None if answered is None else worker in answered,
            process_is_gone=view is not None and self._broker.evidence.process_is_gone(view.info.host, view.info.pid),
        )
        return FailoverTarget(
            verdict=assess_liveness(worker, view, evidence, snapshot.taken_at),
            client_name=client_name,
            incarnation="" if view is None else "fenced" if view.fenced else view.info.incarnation,
            is_certain=evidence.process_is_gone or _is_silent(view, snapshot.taken_at),
        )


def _is_silent(view: WorkerView | None, now: float) -> bool:
    if view is None or view.fenced or view.beat is None or view.beat.stopped:
        return True
    return now - view.beat.at > 2 * view.info.beat_seconds
