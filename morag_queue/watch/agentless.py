"""Support for agentless workers, in separate threads, because a control request to such a worker may take a second.

    keep-alive   protects the messages that they hold from redelivery: a task that runs longer than the visibility
                 timeout would otherwise run twice
    events       enables their task events and records these in the ledger and the counters

The threads start when agentless workers are first seen, and act only while this process leads.
"""

from collections.abc import Callable
from contextlib import suppress
from threading import Event as Signal
from threading import Thread

from morag_queue.broker.agentless import VISIBILITY_S, AgentlessWorkers
from morag_queue.broker.celery_control import CeleryControl
from morag_queue.broker.celery_events import TaskEvents
from morag_queue.broker.connection import connect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.worker_status import agent_nodes

from .events import Event, EventSink

_MAX_PAUSE_S, _MIN_PAUSE_S = 30.0, 1.0
_READ_AGAIN_S = 1.0
_JOIN_S = 5.0
_READY_S = 5.0


class AgentlessSupport:
    """Two threads that run from `start` to `stop` and act only while `is_leader` returns True."""

    def __init__(self, broker: RedisBroker, emit: EventSink, is_leader: Callable[[], bool]) -> None:
        settings = broker.settings
        # A separate connection: the loop and these threads must not wait for each other.
        self._broker = RedisBroker(settings, connect(settings.redis_url, settings.broker, name="mq.watch"))
        self._emit, self._is_leader = emit, is_leader
        self._workers = AgentlessWorkers(self._broker.client, self._broker.keys, CeleryControl(settings))
        self._stop, self._workers_found = Signal(), Signal()
        self._threads: list[Thread] = []
        self._nodes: frozenset[str] = frozenset()
        self._visibility_s = VISIBILITY_S
        self._events = TaskEvents(
            self._broker.client, self._broker.keys, settings.ledger.retention_seconds,
            lambda node: node in self._nodes and self._is_leader(),
        )  # fmt: skip

    def start(self) -> None:
        """Start the threads. A second call does nothing."""
        if not self._threads:
            for run, name in ((self._keep_alive, "keep-alive"), (self._read_events, "task-events")):
                self._threads.append(Thread(target=run, name=f"morag-queue-{name}", daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """Stop the threads and close their connections."""
        self._stop.set()
        self._workers_found.set()
        self._events.stop()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._broker.client.close()

    def _keep_alive(self) -> None:
        pause = _MIN_PAUSE_S
        while not self._stop.is_set():
            if self._is_leader():
                # The loop reports broker errors: it uses the same broker several times a second.
                with suppress(Exception):
                    pause = self._round()
            self._stop.wait(pause)

    def _round(self) -> float:
        """Find the workers and keep their messages alive.

        Return the seconds until the next round: a quarter of the shortest visibility timeout, at most 30.
        """
        snapshot, _ = self._broker.observe()
        nodes = frozenset(self._workers.nodes(agent_nodes(snapshot, self._broker.settings.policy)))
        if nodes != self._nodes:
            self._nodes = nodes
            self._emit(Event.AGENTLESS, nodes=sorted(nodes))
            if nodes:
                self._enable_events(nodes)
        if not nodes:
            return _MAX_PAUSE_S
        kept = self._workers.keep_alive(self._workers.in_flight(sorted(nodes)))
        if kept:
            self._emit(Event.KEPT_ALIVE, count=kept)
        return min(max(self._visibility_s / 4, _MIN_PAUSE_S), _MAX_PAUSE_S)

    def _enable_events(self, nodes: frozenset[str]) -> None:
        self._visibility_s = self._workers.visibility_seconds(sorted(nodes))
        self._workers_found.set()
        self._events.ready.wait(_READY_S)  # events sent before the receiver is ready are lost
        self._workers.enable_events(nodes)
        self._emit(Event.EVENTS_ENABLED, nodes=sorted(nodes))

    def _read_events(self) -> None:
        control = CeleryControl(self._broker.settings)
        self._workers_found.wait()
        while not self._stop.is_set():
            with suppress(Exception):
                self._events.read(control)
            self._stop.wait(_READ_AGAIN_S)
