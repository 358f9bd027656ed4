"""The loop that looks after a fleet: `step` is one turn (verbs/turn.py), `Watch` makes turns under the lease.

    look      twice a second, a cheap glance: who is there, what waits (broker/glance.py); what is news (core/glance.py)
    turn      at every tick, and at once on news
    sweep     what nobody looks after: taken and in no hand, open and nowhere, a part at a time (verbs/sweep.py)
    monitor   once a minute: the figures, and what a person would want to know

One leads, the others stand by. What a turn keeps in mind is on the broker, so whoever leads next goes on from there.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event as Signal
from time import monotonic, perf_counter
from traceback import extract_tb
from uuid import uuid4

from morag_queue.broker.counters import CorrectionStore
from morag_queue.broker.poll import FleetPoller
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.fleet_poll import ChangeKind, FleetChange, FleetPoll, PollHistory, detect_changes
from morag_queue.core.model import FleetStats, WorkerInfo
from morag_queue.errors import BrokerUnreachable, LeaseHeld, LeaseLost
from morag_queue.operations.leader import LEASE_S, Leader, lead
from morag_queue.operations.stats import stats
from morag_queue.operations.sweep import LOOK_AGAIN_SECONDS, Sweep

from .agentless import AgentlessCare
from .events import Event, EventSink
from .report import Stalls, report_changes, report_fleet, report_turn, trigger_of
from .turn import PollEvidence, TurnReport, TurnResult, step, sweep_step

__all__ = ["Hooks", "PollEvidence", "TurnReport", "TurnResult", "Watch", "step"]


LOOK_S = 0.5


_ANXIOUS_LOOK_S = 0.2
"""While somebody is away: what it held waits."""


STANDBY_S = 1.0


_LOOK_SHARE = 20.0
"""A look is followed by a rest of so many times its own length, so that it never takes more than a twentieth."""


MONITOR_S = 60.0


SWEEP_S = 10.0


_BACKOFF_S = (0.5, 5.0)


_CALLS_FOR_A_TURN = frozenset(ChangeKind) - {ChangeKind.GONE}
"""Who has just lost its connections may be back in a moment; that it is overdue is news of its own."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who else wants to know: of each turn's and sweep's report and how late it was (seconds), of each minute's
    figures, and, several times a second, that the loop is alive (`leads`: whether it leads).
    """

    reported: Callable[[TurnReport, float], None] = lambda report, lag: None
    monitored: Callable[[FleetStats], None] = lambda found: None
    alive: Callable[[bool], None] = lambda leads: None


class Watch:
    """The loop of one process. `interval` and `monitor_interval` are seconds; `clock` is this process's own."""

    def __init__(
        self,
        broker: RedisBroker,
        *,
        who: str,
        tell: EventSink,
        monitor_interval: float = MONITOR_S,
        dry_run: bool = False,
        lease_seconds: float = LEASE_S,
        hooks: Hooks | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._broker, self._settings, self._who, self._tell = broker, broker.settings, who, tell
        self._interval = broker.settings.policy.balancing.interval_seconds
        self._monitor_interval, self._dry_run, self._lease_s = monitor_interval, dry_run, lease_seconds
        self._hooks, self._clock = hooks or Hooks(), clock
        self._holder = str(uuid4())
        self._looks = FleetPoller(broker.client, broker.keys)
        self._leader: Leader | None = None
        self._other = ""
        self._stop = Signal()
        self._stock: AgentlessCare | None = None
        self._turns = self._failures = self._failed_turn = 0
        self._failure, self._foreign = "", 0
        self._lost_at: float | None = None
        self._begin()

    def _begin(self) -> None:
        """What a leader knows at its begin: nothing has been seen yet."""
        self._watched, self._infos = PollHistory(), dict[str, WorkerInfo]()
        self._memory, self._sweep = BalancerState(), Sweep(self._broker, dry_run=self._dry_run)
        self._stalls = Stalls()
        self._tick_at = self._monitor_at = self._clock()
        self._sweep_at = self._tick_at + 1.0

    def run(self, stop: Signal) -> None:
        """Until `stop` is set; then the lease is given up. Never raises: what goes wrong is told, and tried again."""
        self._stop = stop
        self._tell(
            Event.STARTED, fleet=self._broker.fleet, who=self._who, interval_seconds=self._interval,
            monitor_seconds=self._monitor_interval, dry_run=self._dry_run,
        )  # fmt: skip
        try:
            while not stop.is_set():
                stop.wait(self._guarded())
        finally:
            self._finish()

    def once(self) -> TurnReport:
        """One turn and one part of the sweep, now. Raises LeaseHeld where another one leads."""
        if not self._dry_run:
            self._take("watch --once")
        try:
            infos = {view.worker: view.info for view in self._broker.observe()[0].workers}
            first = self._glance()
            # Who is not connected now has been so since the server started, as far as is known.
            self._watched, _ = detect_changes(PollHistory(since=first.up_since), first, infos, self._settings.policy)
            self._stop.wait(LOOK_S)
            self._watched, changes = detect_changes(self._watched, self._glance(), infos, self._settings.policy)
            report_changes(self._tell, changes, self._watched)
            self._infos = infos
            report = self._turn("once", changes)
            self._sweep_once()
            self._monitor()
            return report
        finally:
            self._finish()

    # -- one round, and what may go wrong in it

    def _guarded(self) -> float:
        """One round; the seconds until the next."""
        try:
            pause = self._round()
        except LeaseLost:
            self._tell(Event.LEASE_LOST, term=self._leader.lease.term if self._leader else 0)
            self._leader = None
            return LOOK_S
        except LeaseHeld:  # someone was faster
            return LOOK_S
        except BrokerUnreachable as error:
            return self._after_loss(error)
        except Exception as error:  # noqa: BLE001  the fleet is not to be without its loop because of one bad turn
            return self._after_failure(error)
        self._works()
        return pause

    def _round(self) -> float:
        self._hooks.alive(self._leader is not None)
        if not self._dry_run and not self._leads():
            return STANDBY_S
        began = perf_counter()
        changes = self._look()
        rest = _ANXIOUS_LOOK_S if self._watched.absent else LOOK_S
        pause = min(max(rest, _LOOK_SHARE * (perf_counter() - began)), STANDBY_S)
        now = self._clock()
        calls = [one for one in changes if one.kind in _CALLS_FOR_A_TURN]
        if now >= self._tick_at:
            lag, self._tick_at = max(now - self._tick_at, 0.0), now + self._interval
            self._turn("tick", changes, lag)
        elif calls:
            self._turn(trigger_of(calls), changes)
        elif now >= self._sweep_at and not self._dry_run:
            self._sweep_once()
        if now >= self._monitor_at:
            self._monitor_at = now + self._monitor_interval
            self._monitor()
            if not self._dry_run:
                self._care_for_stock()
        return pause

    def _after_loss(self, error: BrokerUnreachable) -> float:
        if self._lost_at is None:
            self._lost_at = self._clock()
            self._tell(Event.BROKER_LOST, error=str(error))
        self._watched = self._watched.interrupted()
        return self._backoff()

    def _after_failure(self, error: Exception) -> float:
        said, self._failed_turn = str(error) or type(error).__name__, self._turns
        if said != self._failure:
            self._failure = said
            last = extract_tb(error.__traceback__)[-1]
            where = f"{last.name} in {last.filename}:{last.lineno}"
            self._tell(Event.TURN_FAILED, error=f"{type(error).__name__}: {said}", where=where)
        self._tick_at = min(self._tick_at, self._clock() + _BACKOFF_S[1])
        return self._backoff()

    def _backoff(self) -> float:
        self._failures += 1
        return min(_BACKOFF_S[0] * 2.0 ** (self._failures - 1), _BACKOFF_S[1])

    def _works(self) -> None:
        if self._lost_at is not None:
            self._tell(Event.BROKER_BACK, seconds=self._clock() - self._lost_at)
        elif self._failures and self._turns == self._failed_turn:
            return  # it only looked: what failed was not tried again
        elif self._failures:
            self._tell(Event.TURN_WORKS_AGAIN, failed_turns=self._failures)
        self._lost_at, self._failures, self._failure = None, 0, ""

    # -- the lease

    def _leads(self) -> bool:
        if self._leader is not None:
            self._leader.keep()
            return True
        with self._broker.translated():
            other = self._broker.leases.current()
        if other is not None:
            if other.holder != self._other:
                self._other = other.holder
                self._tell(Event.STANDING_BY, leader=other.who, verb=other.verb, term=other.term)
            return False
        self._take("watch")
        return True

    def _take(self, verb: str) -> None:
        leader = lead(self._broker, self._who, verb, holder=self._holder, seconds=self._lease_s, clock=self._clock)
        self._leader, self._other = leader, ""
        self._begin()
        with self._broker.translated():
            self._memory = self._broker.state_store.load()
        self._tell(Event.LEADING, term=leader.lease.term)
        self._hooks.alive(True)

    @property
    def _term(self) -> str:
        return self._leader.term if self._leader is not None else ""

    def _finish(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            with suppress(BrokerUnreachable):  # then it runs out by itself
                if leader.step_down():
                    self._tell(Event.LEASE_GIVEN_UP, term=leader.lease.term)
        if self._stock is not None:
            self._stock.end()
        self._tell(Event.STOPPED, turns=self._turns)

    # -- look, turn, sweep, monitor

    def _glance(self) -> FleetPoll:
        with self._broker.translated():
            return self._looks.look()

    def _look(self) -> tuple[FleetChange, ...]:
        self._watched, changes = detect_changes(self._watched, self._glance(), self._infos, self._settings.policy)
        report_changes(self._tell, changes, self._watched)
        self._stalls.ended(self._watched, self._tell)
        return changes

    def _turn(self, trigger: str, changes: Iterable[FleetChange], lag: float = 0.0) -> TurnReport:
        policy = self._settings.policy
        flapping = {one.worker: one.count for one in changes if one.kind is ChangeKind.FLAPPING}
        evidence = PollEvidence(
            self._watched.proved_absent(self._infos), self._watched.silent(self._infos, policy), flapping
        )
        done = step(
            self._broker, self._memory, evidence, term=self._term, who=self._who, trigger=trigger,
            dry_run=self._dry_run, pause=self._pause,
        )  # fmt: skip
        self._turns += 1
        self._memory, self._infos = done.memory, {view.worker: view.info for view in done.snapshot.workers}
        self._stalls.look(done.snapshot, self._watched, self._tell)
        report_turn(self._tell, done.report, flapping, policy.recovery.breaker_seconds)
        self._hooks.reported(done.report, lag)
        return done.report

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _sweep_once(self) -> None:
        report = sweep_step(self._broker, self._sweep, term=self._term, who=self._who)
        self._sweep_at = self._clock() + (LOOK_AGAIN_SECONDS if self._sweep.must_look_again else SWEEP_S)
        report_turn(self._tell, report, {}, 0.0)
        self._hooks.reported(report, 0.0)

    def _care_for_stock(self) -> None:
        """Workers without the agent are looked after by threads, from the first time that some are seen."""
        with self._broker.translated():
            strangers = self._broker.evidence.connected().agentless_connections
        if strangers and self._stock is None:
            self._stock = AgentlessCare(self._broker, self._tell, lambda: self._leader is not None)
            self._stock.begin()

    def _monitor(self) -> None:
        if not self._dry_run:
            with self._broker.translated():
                runs, estimates = CorrectionStore(self._broker.client, self._broker.keys).fold(term=self._term)
            if runs:
                self._tell(Event.LEARNED, runs=runs, estimates=estimates)
        found = stats(self._broker, self._settings)
        report_fleet(self._tell, found, self._turns)
        if found.foreign_messages != self._foreign:
            self._foreign = found.foreign_messages
            if self._foreign:
                self._tell(Event.FOREIGN, count=self._foreign)
        self._hooks.monitored(found)
