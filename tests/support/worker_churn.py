"""Start and kill workers at random under load, then account for every task."""

import json
import random
import signal
import time
from collections.abc import Callable

from morag_queue.local.waiting import until
from tests.faults.account import FaultAccount

from .fleet import Fleet

TASKS_A_SECOND = 8.0


class WorkerChurn:
    """`submit` queues a task that runs for that many seconds and returns its id.

    `may_run_twice`: tasks that a killed worker held.
    """

    def __init__(self, fleet: Fleet, submit: Callable[[float], str], *, workers: int, seed: int) -> None:
        self.fleet, self._submit, self._chance = fleet, submit, random.Random(seed)
        self._names = [f"worker-cpu-{n}" for n in range(1, workers + 1)]
        self.sent: list[str] = []
        self.may_run_twice: set[str] = set()
        self.deaths: dict[str, int] = {"killed": 0, "left": 0}

    def run(self, seconds: float) -> FaultAccount:
        """Submit tasks and start and kill workers for `seconds`; then let two workers finish the rest."""
        for name in self._names[: len(self._names) // 2]:
            self.fleet.start_worker(name, wait=False)
        end, last = time.monotonic() + seconds, time.monotonic()
        while (now := time.monotonic()) < end:
            for _ in range(round((now - last) * TASKS_A_SECOND)):
                self.sent.append(self._submit(self._chance.random() * 0.4))
                last = now
            self._start_or_end_a_worker()
            time.sleep(0.1 + self._chance.random() * 0.4)
        for name in self._names[:2]:
            if name not in self.fleet.workers:
                self.fleet.start_worker(name, wait=False)
        self.fleet.until_ran(self.sent, 120)
        until(lambda: not self.account().stuck, 60, lambda: f"stuck: {self.account().stuck}")
        return self.account()

    def account(self) -> FaultAccount:
        return self.fleet.account(self.sent)

    def _start_or_end_a_worker(self) -> None:
        alive = [name for name in self._names if name in self.fleet.workers]
        away = [name for name in self._names if name not in self.fleet.workers]
        if away and (len(alive) < 2 or self._chance.random() < 0.5):
            self.fleet.start_worker(self._chance.choice(away), wait=False)
        elif len(alive) > 1:
            name = self._chance.choice(alive)
            if self._chance.random() < 0.8:
                self.fleet.kill(name, signal.SIGKILL)
                self.deaths["killed"] += 1
                self.may_run_twice |= self._held(name)
            else:
                self.fleet.stop(name)
                self.deaths["left"] += 1

    def _held(self, worker: str) -> set[str]:
        """Return the tasks that the worker held when it died; a failover requeues them only seconds later."""
        records = map(json.loads, self.fleet.redis.hvals(self.fleet.keys.held))
        return {task_id for owner, _, task_id, *_ in records if owner == worker}
