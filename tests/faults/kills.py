"""Workers that are killed while messages arrive: the main process and its children at once, as if the host had died.

Each worker has its own lane, so that a message goes to the worker that dies.
"""

import json
import signal
import time
from abc import abstractmethod

from morag_queue.local.waiting import until

from .fault import Fault

BURST = 20
"""Messages sent to a busy worker before it is killed."""


class KilledWorkers(Fault):
    """Kills six workers in turn and starts them again, because starting them takes most of the time."""

    rounds = 60
    quick_rounds = 12
    names = tuple(f"worker-cpu-{number}" for number in range(1, 7))

    def prepare(self) -> None:
        self.start(*self.names)

    def inject(self) -> None:
        while (left := self.planned_rounds - len(self.notes)) > 0:
            dead = self.names[:left]
            for name in dead:
                self.approach(name)
                self.fleet.kill(name)
                self.may_run_twice |= self._held_by(name)
                self.notes.append("kill")
            self.start(*dead)
        self.notes[:] = [f"{len(self.notes)} kills"]

    @abstractmethod
    def approach(self, name: str) -> None:
        """What precedes the kill."""

    def send_to(self, name: str) -> None:
        self.send("t.later", lane=self.own_lane(name), level=self.chance.randrange(10))

    def until_idle(self, name: str) -> None:
        lists = [self.fleet.keys.list(self.own_lane(name), level) for level in range(10)]
        until(lambda: not any(map(self.fleet.redis.llen, lists)), 60, lambda: f"it runs nothing: {self.fleet.where()}")

    def _held_by(self, name: str) -> set[str]:
        """The tasks that the worker held when it died."""
        records = map(json.loads, self.fleet.redis.hvals(self.fleet.keys.held))
        return {task_id for owner, _, task_id, *_ in records if owner == name}


class KilledBusyWorkers(KilledWorkers):
    number = 1
    name = "busy workers killed, in a tight loop"
    promise = "none lost; only what ran there may run twice"

    def approach(self, name: str) -> None:
        for _ in range(BURST):
            self.send_to(name)
        time.sleep(self.chance.random() * 0.03)


class KilledIdleWorkers(KilledWorkers):
    number = 2
    name = "idle workers killed 0–5 ms after a message was sent"
    promise = "none lost"

    def approach(self, name: str) -> None:
        self.until_idle(name)
        self.send_to(name)
        time.sleep(self.chance.random() * 0.005)


class KilledStoppedWorkers(KilledWorkers):
    number = 2
    name = "idle workers stopped (SIGSTOP), a message sent, then killed"
    promise = "none lost"

    def approach(self, name: str) -> None:
        self.until_idle(name)
        self.fleet.kill(name, signal.SIGSTOP)
        self.send_to(name)
