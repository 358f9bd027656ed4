"""drain: observe → move what waits → wait for what runs → observe …, until nothing is left or the deadline has come.

The cordon is what drains: the worker's claims look at it, so from the moment it is written nothing is taken there, and
the agent gives back what it has not begun. This verb moves the worker's lanes and waits. It may be cut off anywhere and
begun again; the cordon stands, also over a restart of the worker, until `uncordon`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import uuid4

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Cordon, HeldMessage, WorkerStatus
from morag_queue.core.plan import Blocker, Plan
from morag_queue.core.recovery.drain import plan_drain, plan_force, unserved
from morag_queue.core.snapshot import WorkerView
from morag_queue.errors import Refused

from .apply import apply
from .cordon import CordonResult, cordon_result, note, worker_named
from .drain_checks import preflight

DEADLINE_SECONDS = 3600.0
"""How long a drain waits when nobody says; as nomad."""


_PAUSES = (0.05, 1.0)
"""Seconds: first and longest pause between two looks; each is half as long again."""


_TOLD_EVERY_SECONDS = 10.0


_UNDER_WAY = (WorkerStatus.DRAINING, WorkerStatus.DRAINED)


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """What was asked for. `deadline_seconds`: None is no deadline; `deadline_given`: somebody said so."""

    who: str
    reason: str = ""
    deadline_seconds: float | None = DEADLINE_SECONDS
    deadline_given: bool = False
    force: bool = False
    detach: bool = False
    shutdown: bool = False
    overrides: frozenset[str] = frozenset()


def _nothing(_: object) -> None:
    return


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """`say` is told what happens, in a line; `left` how many tasks are left; `pause` waits so many seconds."""

    pause: Callable[[float], None]
    say: Callable[[str], None] = _nothing
    left: Callable[[int], None] = _nothing


@dataclass(slots=True)
class _Done:
    moved: int = 0
    taken_back: int = 0
    warnings: list[str] = field(default_factory=list)


class Drain:
    """One drain of one registered worker. Raises NotFound, UsageError where `given` names none."""

    def __init__(self, broker: RedisBroker, given: str, wish: DrainOptions, ears: DrainProgress) -> None:
        self._broker, self._settings, self._wish, self._ears = broker, broker.settings, wish, ears
        self._snapshot, _ = broker.observe()
        self._view = worker_named(self._snapshot, given)
        self._began = self._snapshot.taken_at
        self._done = _Done()
        self._quiet_since: float | None = None
        self._told: tuple[int, float] = (-1, 0.0)
        self._plan_id = str(uuid4())

    @property
    def worker(self) -> str:
        return self._view.worker

    def plan(self) -> Plan:
        """What would be moved now."""
        return plan_drain(self._snapshot, self.worker, self._settings.queues, plan_id=self._plan_id)

    def verdicts(self) -> tuple[Blocker, ...]:
        """What stands against it and is not overridden; nothing against a drain that has begun before."""
        if self._state in _UNDER_WAY:
            return ()
        found = preflight(self._broker, self._snapshot, self._view, self._wish.deadline_seconds)
        return tuple(one for one in found if not self._wish.force and one.overridden_by not in self._wish.overrides)

    def preview(self) -> CordonResult:
        """The answer of a dry run."""
        count = self._snapshot.waiting_count(self.worker)
        would = cordon_result(self._snapshot, self._view, state=self._state, dry_run=True)
        back = plan_force(self._snapshot, self.worker, plan_id=self._plan_id).steps if self._wish.force else ()
        return would.model_copy(
            update={
                "moved_tasks": count, "taken_back_tasks": len(back), "steps": (*self.plan().steps, *back),
                "changed": self._state is not WorkerStatus.DRAINED,
            }
        )  # fmt: skip

    def run(self) -> CordonResult:
        """Raises Refused where a verdict stands against it, or where someone lifts the cordon meanwhile."""
        if self._state is WorkerStatus.DRAINED and not self._held:
            return self._shut_down(self._answer(WorkerStatus.DRAINED, changed=False))
        if self._state in _UNDER_WAY or not self._begin():
            self._join()
        pause, longest = _PAUSES
        while True:
            if self._turn():
                return self._shut_down(self._finish())
            self._tell()
            if self._wish.detach or self._is_late:
                return self._answer(WorkerStatus.DRAINING)
            self._ears.pause(pause)
            pause = min(1.5 * pause, longest)
            self._look()

    # -- the beginning

    def _begin(self) -> bool:
        """False when someone else has begun in this very moment."""
        if against := self.verdicts():
            raise Refused(*refusal(against))
        wish, now = self._wish, self._began
        deadline = None if wish.deadline_seconds is None else now + wish.deadline_seconds
        cordon = Cordon(state=WorkerStatus.DRAINING, reason=wish.reason, who=wish.who, at=now, deadline=deadline)
        if not self._put(cordon, (None, WorkerStatus.CORDONED)):
            return False
        note(self._broker, self._view, wish.who, "drain", wish.reason, "draining", deadline=deadline)
        self._look()
        self._say(f"{self.worker} takes nothing any more")
        self._broker.control.refresh_cordon([self._view.info.node])
        for queue in unserved(self._snapshot, self._view, self._settings.policy):
            self._done.warnings.append(f"{self.worker} was the last worker in service for {queue}: work for it waits")
        return True

    def _join(self) -> None:
        """A drain that is under way: someone else's, or one whose command was left."""
        self._look()
        cordon = self._view.cordon
        assert cordon is not None, self._state
        by = f" by {cordon.who}" if cordon.who else ""
        self._say(f"{self.worker} is being drained{by} already: waiting for that")
        if self._wish.deadline_given:
            seconds = self._wish.deadline_seconds
            deadline = None if seconds is None else self._began + seconds
            self._put(cordon.model_copy(update={"deadline": deadline}), (WorkerStatus.DRAINING,))
            self._look()

    def _put(self, cordon: Cordon, over: tuple[WorkerStatus | None, ...]) -> bool:
        with self._broker.translated():
            return self._broker.cordons.put(self.worker, cordon, over)

    # -- one turn

    def _look(self) -> None:
        self._snapshot, _ = self._broker.observe()
        self._view = self._snapshot.worker_by_id.get(self.worker) or replace(self._view, cordon=None)
        if self._state not in _UNDER_WAY:
            raise Refused(f"{self.worker} was put back into service meanwhile: nothing more of it is moved")

    def _turn(self) -> bool:
        """Moves and takes back what it can; True when nothing is left."""
        if self._move() or (self._wish.force and self._take_back()) or self._held:
            self._quiet_since = None
            return False
        now = self._snapshot.taken_at
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        # One that does not claim hears of the cordon with its beat, and may still bring what it was waiting for.
        patience = 0.0 if self._view.info.claims else 2 * self._view.info.beat_seconds + 1
        return now - self._quiet_since >= patience

    def _move(self) -> int:
        plan = self.plan()
        moved = apply(self._broker, plan).moved if plan.steps else 0
        self._done.moved += moved
        if moved:
            self._say(f"moved {tasks(moved)} from its lanes to the shared lanes")
        return moved

    def _take_back(self) -> int:
        # What it has not begun the agent gives back by itself; if that comes first, it cannot begin it any more.
        waited = self._snapshot.taken_at - self._began
        if len(self._held) > self._view.info.slots and waited < self._view.info.beat_seconds + 1:
            return 0
        done = apply(self._broker, plan_force(self._snapshot, self.worker, plan_id=self._plan_id))
        self._done.taken_back += done.taken_back
        if done.taken_back:
            self._say(
                f"took back {tasks(done.taken_back)} that may have begun: they run again elsewhere (at least once), "
                f"and how they end on {self.worker} does not count"
            )
        return done.taken_back

    def _tell(self) -> None:
        """When something has changed, and now and then."""
        count, (before, at), now = len(self._held), self._told, self._snapshot.taken_at
        if count and (count != before or now - at >= _TOLD_EVERY_SECONDS):
            oldest = min(self._held, key=lambda one: one.claimed_at)
            self._say(f"{tasks(count)} left; the oldest, {oldest.task_id}, for {now - oldest.claimed_at:.0f} s")
            self._told = (count, now)
        self._ears.left(count)

    # -- the end

    def _finish(self) -> CordonResult:
        if stuck := self._snapshot.waiting_count(self.worker):
            self._done.warnings.append(
                f"{stuck} messages stay in its lanes: not of Celery's form, or only for workers with a GPU"
            )
        cordon = self._view.cordon
        assert cordon is not None, self._state
        if self._put(cordon.model_copy(update={"state": WorkerStatus.DRAINED}), (WorkerStatus.DRAINING,)):
            note(
                self._broker, self._view, self._wish.who, "drain", cordon.reason, "drained",
                moved_tasks=self._done.moved, taken_back_tasks=self._done.taken_back,
            )  # fmt: skip
        self._say(f"{self.worker} is drained")
        return self._answer(WorkerStatus.DRAINED)

    def _shut_down(self, answer: CordonResult) -> CordonResult:
        """With --shutdown: tells the process to end, and waits for that."""
        if not self._wish.shutdown or is_gone(self._broker, self._view):
            return answer
        if self._wish.detach:
            order_shutdown(self._broker, self._view, self._wish.who, self._wish.reason)
            return answer
        self._say(f"telling {self.worker} to shut down")
        order_shutdown(self._broker, self._view, self._wish.who, self._wish.reason)
        while not is_gone(self._broker, self._view):
            if self._is_late:
                warning = f"{self.worker} is drained, and its process still runs: it did not follow the order"
                return answer.model_copy(update={"warnings": (*answer.warnings, warning), "shut_down": False})
            self._ears.pause(_PAUSES[1] / 4)
            self._look()
        self._say(f"{self.worker} has shut down")
        return answer.model_copy(update={"shut_down": True})

    def _answer(self, state: WorkerStatus, *, changed: bool = True) -> CordonResult:
        return cordon_result(self._snapshot, self._view, changed=changed).model_copy(
            update={
                "state": state,
                "moved_tasks": self._done.moved,
                "taken_back_tasks": self._done.taken_back,
                "waited_seconds": round(self._snapshot.taken_at - self._began, 3),
                "warnings": tuple(self._done.warnings),
            }
        )

    # -- what is seen

    @property
    def _state(self) -> WorkerStatus | None:
        return None if self._view.cordon is None else self._view.cordon.state

    @property
    def _held(self) -> tuple[HeldMessage, ...]:
        return self._snapshot.held_by_worker.get(self.worker, ())

    @property
    def _is_late(self) -> bool:
        cordon = self._view.cordon
        return cordon is not None and cordon.deadline is not None and self._snapshot.taken_at >= cordon.deadline

    def _say(self, line: str) -> None:
        self._ears.say(line)


def refusal(against: tuple[Blocker, ...]) -> list[str]:
    """All obstacles at once, each with what helps and the flag that goes on in spite of it."""
    lines = [f"{one.subject}: {one.reason}; {one.remedy}, or add {one.overridden_by}" for one in against]
    return [*lines, "nothing was changed; --force overrides all of this, and takes back what is running"]


def tasks(count: int) -> str:
    return f"{count} task" if count == 1 else f"{count} tasks"


def order_shutdown(broker: RedisBroker, view: WorkerView, who: str, reason: str) -> None:
    """A warm shutdown: Celery lets what runs end first. The order is not confirmed."""
    broker.control.shut_down([view.info.node])
    with broker.translated():
        broker.journal.write(who, "shutdown", view.worker, reason=reason, changes={"node": view.info.node})


def is_gone(broker: RedisBroker, view: WorkerView) -> bool:
    """Whether the process has said goodbye and closed its connections, or was never there in this run."""
    with broker.translated():
        return not broker.registry.is_connected(view.info.client_name)
