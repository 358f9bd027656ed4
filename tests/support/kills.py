"""Kill workers in a tight loop while messages arrive, then account for every task.

Three ways to die, in turn: busy (at a random moment of a stream of tasks), idle (0-5 ms after a message was sent),
stopped (SIGSTOP, a message, SIGKILL). The main process and its children die together, as if the host had died.
Each worker has its own lane, so that the message goes to the worker that dies.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import cycle

from morag_queue.local.waiting import until
from tests.faults.account import FaultAccount
from tests.support.fleet import Fleet

BURST = 20
"""Messages sent to a busy worker before it is killed."""


class KillLoop:
    """Kills several workers per round, because starting them takes most of the time.

    `sent`: how the worker was killed to which a task was sent, by task id.
    """

    def __init__(self, fleet: Fleet, workers: int, seed: int, *, is_agentless: bool = False) -> None:
        self.fleet, self._is_agentless, self._chance = fleet, is_agentless, random.Random(seed)
        self._names = [f"worker-cpu-{number}" for number in range(1, workers + 1)]
        self._ways = cycle(("busy", "idle", "stopped"))
        self.sent: dict[str, str] = {}
        self.kills: Counter[str] = Counter()

    def run(self, kills: int) -> None:
        """Kill that many workers, restarting each; then wait until the rest is done."""
        self._start(self._names)
        while (remaining := kills - self.kills.total()) > 0:
            dead = [self._kill(name, next(self._ways)) for name in self._names[:remaining]]
            self._start(dead)
        if self._is_agentless:
            until(lambda: not any(map(self._waiting, self._names)), 60, lambda: f"not done: {self.fleet.where()}")
            self.fleet.stop()
        else:
            self.fleet.until_ran(self.sent, 60)

    def account(self) -> FaultAccount:
        return self.fleet.account(self.sent)

    def vanished(self) -> Counter[str]:
        """Count the tasks that neither ended nor have a message on the broker, by how their worker was killed."""
        texts = "".join(map(str, self.fleet.redis.hvals(self.fleet.keys.unacked)))
        for key in self.fleet.redis.scan_iter(_type="list"):
            texts += "".join(map(str, self.fleet.redis.lrange(key, 0, -1)))
        ended = self.fleet.counts()
        return Counter(way for task, way in self.sent.items() if task not in ended and task not in texts)

    def _start(self, names: Sequence[str]) -> None:
        seen = {
            name: self.fleet.log(name).count(" ready.") if self.fleet.sandbox.log(name).exists() else 0
            for name in names
        }
        for name in names:
            options = ("-Q", self._lane(name)) if self._is_agentless else ()
            self.fleet.start_worker(name, wait=False, options=options)
        for name in names:
            until(partial(self._is_ready, name, seen[name]), 60, f"{name} is not ready")

    def _is_ready(self, name: str, seen: int) -> bool:
        return self.fleet.log(name).count(" ready.") > seen

    def _lane(self, name: str) -> str:
        return f"cpu_standard.{name}"

    def _send(self, name: str, way: str, count: int) -> None:
        for _ in range(count):
            self.sent[self.fleet.send(self._lane(name), level=self._chance.randrange(10))] = way

    def _waiting(self, name: str) -> int:
        lists = [self.fleet.keys.list(self._lane(name), level) for level in range(10)]
        return sum(self.fleet.redis.llen(key) for key in lists)

    def _kill(self, name: str, way: str) -> str:
        if way == "busy":
            self._send(name, way, BURST)
            time.sleep(self._chance.random() * 0.03)
        else:
            until(lambda: not self._waiting(name), 60, lambda: f"{name} runs nothing: {self.fleet.where()}")
            if way == "stopped":
                self.fleet.kill(name, signal.SIGSTOP)
            self._send(name, way, 1)
            if way == "idle":
                time.sleep(self._chance.random() * 0.005)
        self.fleet.kill(name)
        self.kills[way] += 1
        return name
