"""The loop that operates a fleet: `Watch` holds the lease and, while it leads, repeats rounds.

    poll      twice a second: connections, heartbeats, cordons, queue lengths (`observer.py`)
    turn      on every tick, and at once on a change of the fleet (`turn.py`)
    sweep     between turns: recover lost work, one part at a time (`operations/sweep.py`)
    monitor   once a minute: fleet statistics, learned estimates

One process leads, the others stand by. The state of balancing is stored on the broker, so the next leader continues it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Event as Signal
from time import monotonic, perf_counter
from uuid import uuid4

from morag_queue.broker.counters import CorrectionStore
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.scripts import load_missing
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.fleet_poll import ChangeKind, FleetChange
from morag_queue.core.snapshot import BrokenValue
from morag_queue.core.stats import FleetStats
from morag_queue.errors import BrokerUnreachable, LeaseHeld, LeaseLost
from morag_queue.operations.leader import LEASE_S, Leader, lead
from morag_queue.operations.stats import stats
from morag_queue.operations.sweep import SEARCH_AGAIN_SECONDS, Sweep

from .agentless import AgentlessSupport
from .events import Event, EventSink
from .failures import MAX_BACKOFF_S, Failures
from .observer import FleetObserver, flapping_starts
from .report import report_fleet, report_turn, trigger_of
from .turn import TurnReport, step, sweep_step

POLL_S = 0.5
STANDBY_S = 1.0
MONITOR_S = 60.0
SWEEP_S = 10.0

_URGENT_POLL_S = 0.2
"""While a worker is absent, because the tasks that it held are waiting."""

_POLL_SHARE = 20.0
"""The pause after a poll is at least this many times its duration, so polling uses at most 5 % of the time."""

_SWEEP_DELAY_S = 1.0
"""Delay of a new leader's first sweep."""

_TRIGGERS = frozenset(ChangeKind) - {ChangeKind.GONE}
"""Changes that trigger a turn. A worker that is GONE may reconnect at once; if it does not, OVERDUE follows."""


@dataclass(frozen=True, slots=True)
class LoopCallbacks:
    """Callbacks for metrics and supervision."""

    on_turn: Callable[[TurnReport, float], None] = lambda report, lag: None
    """After each turn and sweep, with the delay of a turn behind its tick in seconds."""
    on_stats: Callable[[FleetStats], None] = lambda stats: None
    """After each monitoring interval."""
    on_alive: Callable[[bool], None] = lambda is_leader: None
    """Several times a second while the loop runs."""


class Watch:
    """The loop of one process. Intervals are seconds, as is `clock`, a local clock. A dry run needs no lease."""

    def __init__(
        self,
        broker: RedisBroker,
        *,
        who: str,
        emit: EventSink,
        monitor_interval: float = MONITOR_S,
        dry_run: bool = False,
        lease_seconds: float = LEASE_S,
        callbacks: LoopCallbacks | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._broker, self._who, self._emit = broker, who, emit
        self._interval = broker.settings.policy.balancing.interval_seconds
        self._monitor_interval, self._dry_run, self._lease_s = monitor_interval, dry_run, lease_seconds
        self._callbacks, self._clock = callbacks or LoopCallbacks(), clock
        self._holder = str(uuid4())
        self._leader: Leader | None = None
        self._reported_leader = ""
        self._stop = Signal()
        self._agentless: AgentlessSupport | None = None
        self._foreign_messages = 0
        self._reported_values = set[BrokenValue]()
        self.turns = 0
        self.failures = Failures(emit, clock)
        self._reset()

    def _reset(self) -> None:
        """Forget all observations and make everything due, as for a new leader."""
        self._observer = FleetObserver(self._broker, self._emit)
        self._state, self._sweep = BalancerState(), Sweep(self._broker, dry_run=self._dry_run)
        self._tick_at = self._monitor_at = self._clock()
        self._sweep_at = self._tick_at + _SWEEP_DELAY_S

    def run(self, stop: Signal) -> None:
        """Run until `stop` is set, then release the lease. Errors are reported and retried, never raised."""
        self._stop = stop
        self._emit(
            Event.STARTED, fleet=self._broker.fleet, who=self._who, interval_seconds=self._interval,
            monitor_seconds=self._monitor_interval, dry_run=self._dry_run,
        )  # fmt: skip
        try:
            while not stop.is_set():
                stop.wait(self._guarded_round())
        finally:
            self._finish()

    def once(self) -> TurnReport:
        """Make one turn and one part of the sweep now. Raises LeaseHeld if another process leads."""
        if not self._dry_run:
            self._keep_scripts()
            self._take_lease("watch --once")
        try:
            self._observer.start_from(self._broker.observe()[0])
            self._stop.wait(POLL_S)
            report = self._turn("once", self._observer.poll())
            self._sweep_part()
            self._monitor()
            return report
        finally:
            self._finish()

    # -- rounds

    def _guarded_round(self) -> float:
        """Make a round and handle its errors. Return the seconds until the next one."""
        try:
            pause = self._round()
        except LeaseLost:
            self._emit(Event.LEASE_LOST, term=self._leader.lease.term if self._leader else 0)
            self._leader = None
            return POLL_S
        except LeaseHeld:  # another process took the free lease first
            return POLL_S
        except BrokerUnreachable as error:
            self._observer.interrupted()
            return self.failures.broker_lost(error)
        except Exception as error:  # noqa: BLE001  a failed turn must not end the loop
            self._tick_at = min(self._tick_at, self._clock() + MAX_BACKOFF_S)
            return self.failures.turn_failed(error, self.turns)
        self.failures.succeeded(self.turns)
        return pause

    def _round(self) -> float:
        """Keep the lease, poll, and do what is due. Return the seconds until the next round."""
        self._callbacks.on_alive(self._leader is not None)
        if not self._dry_run:
            self._keep_scripts()
            if not self._keep_lease():
                return STANDBY_S
        changes, pause = self._poll()
        now = self._clock()
        triggers = [change for change in changes if change.kind in _TRIGGERS]
        if now >= self._tick_at:
            lag, self._tick_at = max(now - self._tick_at, 0.0), now + self._interval
            self._turn("tick", changes, lag)
        elif triggers:
            self._turn(trigger_of(triggers), changes)
        elif now >= self._sweep_at and not self._dry_run:
            self._sweep_part()
        if now >= self._monitor_at:
            self._monitor_at = now + self._monitor_interval
            self._monitor()
            if not self._dry_run:
                self._support_agentless()
        return pause

    def _poll(self) -> tuple[Sequence[FleetChange], float]:
        """Poll the fleet. Return the changes and the seconds until the next poll."""
        started = perf_counter()
        changes = self._observer.poll()
        pause = _URGENT_POLL_S if self._observer.has_absent_workers else POLL_S
        return changes, min(max(pause, _POLL_SHARE * (perf_counter() - started)), STANDBY_S)

    def _turn(self, trigger: str, changes: Sequence[FleetChange], lag: float = 0.0) -> TurnReport:
        flapping = flapping_starts(changes)
        result = step(
            self._broker, self._state, self._observer.evidence(flapping), term=self._term, who=self._who,
            trigger=trigger, dry_run=self._dry_run, pause=self._pause,
        )  # fmt: skip
        self.turns += 1
        self._state = result.state
        self._observer.after_turn(result.snapshot)
        breaker_seconds = self._broker.settings.policy.recovery.breaker_seconds
        report_turn(self._emit, result.report, flapping, breaker_seconds)
        self._callbacks.on_turn(result.report, lag)
        return result.report

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _sweep_part(self) -> None:
        report = sweep_step(self._broker, self._sweep, term=self._term, who=self._who)
        self._sweep_at = self._clock() + (SEARCH_AGAIN_SECONDS if self._sweep.must_search_again else SWEEP_S)
        report_turn(self._emit, report, {}, 0.0)
        self._callbacks.on_turn(report, 0.0)

    def _monitor(self) -> None:
        if not self._dry_run:
            with self._broker.translated():
                runs, estimates = CorrectionStore(self._broker.client, self._broker.keys).fold(term=self._term)
            if runs:
                self._emit(Event.LEARNED, runs=runs, estimates=estimates)
        fleet = stats(self._broker, self._broker.settings)
        report_fleet(self._emit, fleet, self.turns)
        if fleet.foreign_messages not in (0, self._foreign_messages):
            self._emit(Event.FOREIGN, count=fleet.foreign_messages)
        self._foreign_messages = fleet.foreign_messages
        for value in self._broker.broken:
            if value not in self._reported_values:
                self._emit(Event.BROKEN_VALUE, **asdict(value))
        self._reported_values = set(self._broker.broken)
        self._broker.broken.clear()
        self._callbacks.on_stats(fleet)

    def _support_agentless(self) -> None:
        """Start the support of agentless workers once one is connected."""
        with self._broker.translated():
            agentless = self._broker.evidence.connected().agentless_workers
        if agentless and self._agentless is None:
            self._agentless = AgentlessSupport(self._broker, self._emit, lambda: self._leader is not None)
            self._agentless.start()

    def _keep_scripts(self) -> None:
        """Load the scripts that the server lacks. It loses them by a restart; other logins may not be able to."""
        with self._broker.translated():
            if count := load_missing(self._broker.client):
                self._emit(Event.SCRIPTS_LOADED, count=count)

    # -- the lease

    def _keep_lease(self) -> bool:
        """Renew the lease, or take it if it is free. Return whether this process leads."""
        if self._leader is not None:
            self._leader.keep()
            return True
        with self._broker.translated():
            lease = self._broker.leases.current()
        if lease is not None:
            if lease.holder != self._reported_leader:
                self._reported_leader = lease.holder
                self._emit(Event.STANDING_BY, leader=lease.who, verb=lease.verb, term=lease.term)
            return False
        self._take_lease("watch")
        return True

    def _take_lease(self, verb: str) -> None:
        """Become the leader. Raises LeaseHeld if another process leads."""
        leader = lead(self._broker, self._who, verb, holder=self._holder, seconds=self._lease_s, clock=self._clock)
        self._leader, self._reported_leader = leader, ""
        self._reset()
        with self._broker.translated():
            self._state = self._broker.state_store.load()
        self._emit(Event.LEADING, term=leader.lease.term)
        self._callbacks.on_alive(True)

    @property
    def _term(self) -> str:
        return self._leader.term if self._leader is not None else ""

    def _finish(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            with suppress(BrokerUnreachable):  # the lease expires by itself
                if leader.step_down():
                    self._emit(Event.LEASE_GIVEN_UP, term=leader.lease.term)
        if self._agentless is not None:
            self._agentless.stop()
        self._emit(Event.STOPPED, turns=self.turns)
