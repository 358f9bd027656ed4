"""What the loop does for workers without the agent, in threads of its own: a question to them may take a second.

    keep-alive   touches the messages that they say they have: a task longer than the visibility timeout then runs once
    events       tells them to send task events, and reads these into the ledger and the figures

It begins when such workers are seen, and only the leader does it.
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

from .events import Event, EventSink

_LONGEST_S, _SHORTEST_S = 30.0, 1.0


_AGAIN_S = 1.0


_ENDS_WITHIN_S = 5.0


class AgentlessCare:
    """Started once such workers are seen; ends with `stop`. `leads` says whether it is its turn."""

    def __init__(self, broker: RedisBroker, tell: EventSink, leads: Callable[[], bool]) -> None:
        settings = broker.settings
        # Connections of its own: the loop must not wait for these threads, nor they for it.
        self._broker = RedisBroker(settings, connect(settings.redis_url, settings.broker, name="mq.watch"))
        self._tell, self._leads = tell, leads
        self._workers = AgentlessWorkers(self._broker.client, self._broker.keys, CeleryControl(settings))
        self._stop, self._found = Signal(), Signal()
        self._threads: list[Thread] = []
        self._nodes: frozenset[str] = frozenset()
        self._visibility = VISIBILITY_S
        self._events = TaskEvents(
            self._broker.client, self._broker.keys, settings.ledger.retention_seconds,
            lambda node: node in self._nodes and self._leads(),
        )  # fmt: skip

    def begin(self) -> None:
        """A second call does nothing."""
        if not self._threads:
            for run, name in ((self._keep_alive, "keep-alive"), (self._read_events, "task-events")):
                self._threads.append(Thread(target=run, name=f"morag-queue-{name}", daemon=True))
                self._threads[-1].start()

    def end(self) -> None:
        self._stop.set()
        self._found.set()
        self._events.stop()
        for thread in self._threads:
            thread.join(_ENDS_WITHIN_S)
        self._broker.client.close()

    def _keep_alive(self) -> None:
        pause = _SHORTEST_S
        while not self._stop.is_set():
            if self._leads():
                # Whatever went wrong is the loop's to tell: it speaks to the same broker, several times a second.
                with suppress(Exception):
                    pause = self._round()
            self._stop.wait(pause)

    def _round(self) -> float:
        """One round; the seconds until the next: a quarter of the shortest visibility timeout, 30 at most."""
        snapshot, _ = self._broker.observe()
        nodes = frozenset(self._workers.nodes([view.info.node for view in snapshot.workers]))
        if nodes != self._nodes:
            self._nodes = nodes
            self._tell(Event.AGENTLESS, nodes=sorted(nodes))
            if nodes:
                self._visibility = self._workers.visibility_seconds(sorted(nodes))
                self._found.set()
                self._events.ready.wait(_ENDS_WITHIN_S)  # or the first of them would not be heard
                self._workers.enable_events(nodes)
                self._tell(Event.EVENTS_ENABLED, nodes=sorted(nodes))
        if not nodes:
            return _LONGEST_S
        kept = self._workers.keep_alive(self._workers.in_flight(sorted(nodes)))
        if kept:
            self._tell(Event.KEPT_ALIVE, count=kept)
        return min(max(self._visibility / 4, _SHORTEST_S), _LONGEST_S)

    def _read_events(self) -> None:
        control = CeleryControl(self._broker.settings)
        self._found.wait()
        while not self._stop.is_set():
            with suppress(Exception):
                self._events.read(control)
            self._stop.wait(_AGAIN_S)
