"""Messages that plain workers strand, that kill their process, or that no worker can read."""

import json
from typing import ClassVar

from morag_queue.local.waiting import until

from .fault import LANE, Fault
from .hostile import HOSTILE_MESSAGES

WORKER = "worker-cpu-1"


class StrandedLevels(Fault):
    number = 13
    name = "a producer with 10 priority steps, a plain worker with kombu's 4"
    promise = "`doctor` names it; `watch` moves the work to where it is read"
    has_agent = False
    transport: ClassVar = {}

    def prepare(self) -> None:
        self.start(WORKER)

    def inject(self) -> None:
        for level in range(10):
            self.send("t.later", level=level)
        until(lambda: len(self.fleet.counts()) >= 4, 20, lambda: f"{self.fleet.where()}")
        if not self.is_plain:
            report = self.fleet.run("doctor", "--json", status=1).json
            assert "priority_steps" in str(report) or "level" in str(report), report
        self.watch()


class PoisonPill(Fault):
    number = 14
    name = "a task that kills its process every time"
    promise = "quarantined after 4 deaths"
    ENDLESS = 8

    def prepare(self) -> None:
        self.start(WORKER)

    def inject(self) -> None:
        self.poison = self.send("t.die", level=0)
        self.may_be_left = {self.poison}
        self.send("t.later")
        until(self._is_decided, 120, lambda: f"{self.fleet.counts('start')[self.poison]} starts; {self.fleet.where()}")
        if self.is_plain:
            self.fleet.stop()

    def settle(self) -> None:
        super().settle()
        times = self.fleet.counts("start")[self.poison]
        self.notes.append(f"it started {times} times" + (", and on" if times >= self.ENDLESS else ""))

    def check(self) -> None:
        assert self.fleet.counts("start")[self.poison] == 4
        dead_letter = json.loads(self.fleet.redis.hget(self.fleet.keys.dead, self.poison) or "{}")
        assert len(dead_letter["story"]) == 4
        assert "WorkerLostError" in dead_letter["story"][0][2]

    def _is_decided(self) -> bool:
        is_quarantined = bool(self.fleet.redis.hexists(self.fleet.keys.dead, self.poison))
        return is_quarantined or self.fleet.counts("start")[self.poison] >= self.ENDLESS


class HostileMessages(Fault):
    number = 15
    name = f"{len(HOSTILE_MESSAGES) + 1} malformed messages between good ones"
    promise = "no worker stops; all good ones run"

    def prepare(self) -> None:
        for raw in (*HOSTILE_MESSAGES.values(), b"\xff\xfe"):
            self.fleet.redis.lpush(self.fleet.keys.list(LANE, 4), raw)
            self.send("t.later")

    def inject(self) -> None:
        self.start(WORKER)

    def is_done(self) -> bool:  # a message that cannot be read stays in `unacked`
        return self.acknowledged <= self.fleet.counts().keys()

    def check(self) -> None:
        assert not self.notes, self.notes
