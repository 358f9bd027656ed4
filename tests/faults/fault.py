"""A fault: how it is prepared, injected and settled, and what is promised; the same code for every fleet.

A fault is written once, as a subclass of `Fault`, and run on a fleet of plain Celery and on one with the agent. What an
operator does (watch, commands) has its place in it; plain Celery has nothing, or its own way.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

from kombu.exceptions import OperationalError

from morag_queue.local.fork_server import Process
from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet
from tests.support.watch_process import WatchProcess, start_watch

from .account import FaultAccount, account_of

LANE = "cpu_standard"
LATE_ACK = {"task_acks_late": True, "task_reject_on_worker_lost": True, "worker_prefetch_multiplier": 1}
"""The settings of Celery under which it loses least; the agent sets the same."""

HEARTBEAT_SECONDS = 2.0
"""The default; other tests beat more often."""

PATIENCE_SECONDS = {True: 4.0, False: 30.0}
"""How long nothing may move until a fleet is at rest, by `is_plain`: plain Celery may never finish."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault did to a fleet. `broken`: the promises that were not kept, in words. `notes` are for the table."""

    account: FaultAccount
    broken: Sequence[str]
    notes: Sequence[str]


class Fault(ABC):
    """One run of a fault on a fleet.

    `promise` is ours, in words. `rounds` is how often the fault is repeated within a run, `quick_rounds` in the test
    suite. `conf` updates Celery's settings, `transport` its transport options, `plain_transport` those of plain Celery
    alone. `is_shown_on_plain`: plain Celery has what the fault hits.
    """

    number: ClassVar[int]
    name: ClassVar[str]
    promise: ClassVar[str]
    rounds: ClassVar[int] = 1
    quick_rounds: ClassVar[int] = 1
    is_shown_on_plain: ClassVar[bool] = True
    has_agent: ClassVar[bool] = True
    persist: ClassVar[bool] = False
    conf: ClassVar[Mapping[str, Any]] = {}
    transport: ClassVar[Mapping[str, Any]] = {"priority_steps": list(range(10))}
    plain_transport: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, fleet: AgentFleet, *, is_plain: bool, rounds: int, seed: int) -> None:
        self.fleet, self.is_plain, self.planned_rounds = fleet, is_plain, rounds
        self.chance = random.Random(seed)
        self.attempted: list[str] = []
        self.acknowledged: set[str] = set()
        self.may_run_twice: set[str] = set()
        self.may_be_left: set[str] = set()
        self.notes: list[str] = []
        self.too_slow: list[str] = []

    # -- the fault

    @abstractmethod
    def prepare(self) -> None:
        """Start workers and send what they are to hold."""

    @abstractmethod
    def inject(self) -> None:
        """Make the fault, and end it."""

    def settle(self) -> None:
        """Wait until all has run and nothing is held, or until nothing moves any more."""
        patience, last, since = PATIENCE_SECONDS[self.is_plain], None, time.monotonic()
        while not self.is_done() and time.monotonic() - since < patience:
            self.restart_dead()
            if (state := (len(self.fleet.events()), self.fleet.where())) != last:
                last, since = state, time.monotonic()
            time.sleep(0.05)

    def check(self) -> None:  # noqa: B027 - most faults promise no more than the account
        """Assert what is promised beyond the account; only on our fleet."""

    # -- what was sent

    def send(self, task: str, *args: Any, lane: str = LANE, level: int = 4, countdown: float | None = None) -> str:
        """Send by plain Celery, without a ledger entry; return the task id."""
        task_id = str(uuid4())
        self.attempted.append(task_id)
        try:
            self.fleet.producer.send_task(
                task, args, task_id=task_id, queue=lane, priority=level, countdown=countdown, ignore_result=True
            )
        except OperationalError:
            return task_id
        self.acknowledged.add(task_id)
        return task_id

    def hold(self, file: str = "release", **where: Any) -> str:
        """Send a task that runs until `release(file)`."""
        return self.send("t.hold", str(self.fleet.release_file(file)), **where)

    def release(self, file: str = "release") -> None:
        self.fleet.release_file(file).touch()

    # -- workers

    def start(self, *names: str, queues: Sequence[str] = (), options: Sequence[str] = (), **more: Any) -> None:
        """Start workers that read the shared lane and their own; wait until they are ready."""
        seen = {name: self._ready(name) for name in names}
        for name in names:
            read = (
                ("-Q", ",".join(queues or (LANE, self.own_lane(name)))) if self.is_plain or not self.has_agent else ()
            )
            self.fleet.start_worker(name, wait=False, options=(*read, *options), **more)
        for name in names:
            until(partial(lambda name: self._ready(name) > seen[name], name), 60, partial(self.fleet.log, name))

    def restart_dead(self) -> None:
        """Start workers that have exited by themselves, as a supervisor does."""
        for name, process in list(self.fleet.workers.items()):
            if process.poll() is not None:
                del self.fleet.workers[name]
                self.fleet.start_worker(name, wait=False, options=self._reads(name))
                self.notes.append("a worker exited")

    def process(self, name: str) -> Process:
        return self.fleet.workers[name]

    @staticmethod
    def own_lane(name: str) -> str:
        return f"{LANE}.{name}"

    def _reads(self, name: str, queues: Sequence[str] = ()) -> Sequence[str]:
        """The options for what it reads; the agent subscribes by itself."""
        is_agentless = self.is_plain or not self.has_agent
        return ("-Q", ",".join(queues or (LANE, self.own_lane(name)))) if is_agentless else ()

    def _ready(self, name: str) -> int:
        return self.fleet.log(name).count(" ready.") if self.fleet.sandbox.log(name).exists() else 0

    # -- the operator's part

    def watch(self, name: str = "watch") -> WatchProcess | None:
        """Start `watch`; plain Celery has none."""
        if self.is_plain:
            return None
        process = start_watch(self.fleet, "--interval", "1s", "--json", name=name)
        process.wait_for("leading")
        return process

    def operate(self, *command: str) -> Any:
        """Run a command of ours and return its answer; plain Celery has nothing in its place."""
        return None if self.is_plain else self.fleet.run_json(*command)

    # -- conditions

    def until_held(self, count: int) -> None:
        """Wait until workers hold that number of messages."""
        until(lambda: self._unacked() == count, 20, lambda: f"not taken: {self.fleet.where()}")

    def until_started(self, task_id: str, times: int = 1) -> None:
        until(
            lambda: self.fleet.counts("start")[task_id] >= times, 30,
            lambda: f"not started {times} times: {self.fleet.where()}",
        )  # fmt: skip

    def is_done(self) -> bool:
        """Whether all has run, and no message is left that will run once more."""
        has_run = self.acknowledged - self.may_be_left <= self.fleet.counts().keys()
        return has_run and not self._unacked() and not self._waiting()

    def now(self) -> float:
        """The server's clock, in seconds since the epoch."""
        seconds, microseconds = self.fleet.redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def starts(self) -> dict[str, int]:
        return dict(self.fleet.counts("start"))

    def _unacked(self) -> int:
        return int(self.fleet.redis.hlen(self.fleet.keys.unacked))

    def _waiting(self) -> int:
        lanes = self.fleet.redis.scan_iter(match=f"{LANE}*", count=1000, _type="list")
        return sum(int(self.fleet.redis.llen(lane)) for lane in lanes)

    def account(self) -> FaultAccount:
        return account_of(
            self.fleet.redis, self.fleet.keys, attempted=self.attempted, acknowledged=self.acknowledged,
            ended=self.fleet.counts().elements(),
        )  # fmt: skip


def run(
    kind: type[Fault], *, is_plain: bool, rounds: int | None = None, seed: int = 1, is_timed: bool = True
) -> Outcome:
    """Run a fault on a fleet of its own. `is_timed`: a promised time counts, too."""
    with _fleet(kind, is_plain) as fleet:
        fault = kind(fleet, is_plain=is_plain, rounds=rounds or kind.rounds, seed=seed)
        fault.prepare()
        fault.inject()
        fault.settle()
        account = fault.account()
        broken = account.broken_promises(fault.may_run_twice, fault.may_be_left)
        if not is_plain:
            try:
                fault.check()
            except AssertionError as error:
                broken.append(str(error) or "a check failed")
            broken += fault.too_slow if is_timed else []
        return Outcome(account, broken, fault.notes)


@contextmanager
def _fleet(kind: type[Fault], is_plain: bool) -> Iterator[AgentFleet]:
    transport = {**kind.transport, **(kind.plain_transport if is_plain else {})}
    conf = {**LATE_ACK, **kind.conf, "broker_transport_options": transport}
    env = {"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    with AgentFleet(agent=kind.has_agent and not is_plain, conf=conf, env=env, persist=kind.persist) as fleet:
        yield fleet
