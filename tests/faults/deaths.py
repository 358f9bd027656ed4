"""A worker dies, or is taken for dead and wakes, while it holds running, prefetched, delayed and limited tasks."""

import json
import signal
from functools import partial
from typing import ClassVar

from morag_queue.local.waiting import until

from .fault import HEARTBEAT_SECONDS, Fault

FIRST, SECOND = "worker-cpu-1", "worker-cpu-2"
HELD = 3


class HoldingWorker(Fault):
    """One worker runs a task and has prefetched two; another is started once it has."""

    conf: ClassVar = {"worker_prefetch_multiplier": HELD}

    def prepare(self) -> None:
        self.start(FIRST)
        self.running = self.hold(level=0)
        self.until_started(self.running)
        self.reserved = [self.send("t.later") for _ in range(HELD - 1)]
        self.until_held(HELD)
        self.may_run_twice = {self.running}

    def check(self) -> None:
        starts = self.starts()
        assert [starts[task] for task in self.reserved] == [1, 1], f"prefetched tasks started again: {starts}"


class WorkerDies(HoldingWorker):
    number = 4
    name = "a worker with a running and two prefetched tasks is killed, `watch` on"
    promise = "all run elsewhere, once, within 5 s"
    SECONDS = 5.0

    def prepare(self) -> None:
        self.watch()
        began = self.now()
        super().prepare()
        self.start(SECOND)
        if not self.is_plain:  # a watch that has just started gives each worker the time to connect again
            until(lambda: self.now() - began > 2 * HEARTBEAT_SECONDS + 2, 20, "the server's clock stands still")

    def inject(self) -> None:
        self.killed_at = self.now()
        self.fleet.kill(FIRST)
        self.release()

    def settle(self) -> None:
        super().settle()
        if self.is_done():
            seconds = max(event["at"] for event in self.fleet.events("end")) - self.killed_at
            self.notes.append(f"the last after {seconds:.1f} s")
            if seconds > self.SECONDS:
                self.too_slow.append(f"the last after {seconds:.1f} s")
        else:
            self.notes.append("for the visibility timeout, one hour by default")


class ZombieWakes(HoldingWorker):
    number = 5
    name = "a stopped worker wakes after its work was taken over"
    promise = "it starts nothing and destroys nothing"
    # Plain Celery takes over by the visibility timeout alone.
    plain_transport: ClassVar = {
        "visibility_timeout": 1,
        "unacked_restore_interval": 0.2,
        "unacked_restore_throttle": 1,
    }

    def inject(self) -> None:
        self.fleet.kill(FIRST, signal.SIGSTOP)
        self.start(SECOND, concurrency=2)
        self.operate("failover", FIRST, "--force", "--yes")
        self.until_started(self.running, 2)
        until(lambda: set(self.reserved) <= self.fleet.counts().keys(), 30, lambda: f"{self.fleet.where()}")
        self.fleet.kill(FIRST, signal.SIGCONT)
        if not self.is_plain:
            until(lambda: self.fleet.log(FIRST).count(f"registered {FIRST}") == 2, 30, partial(self.fleet.log, FIRST))
        self.release()


class DelayedTasks(Fault):
    number = 6
    name = "a worker with rate-limited and ETA tasks is checked, then killed"
    promise = "never taken from a live worker; a dead one's run in time"
    conf: ClassVar = {"worker_prefetch_multiplier": 8}
    DELAY_SECONDS = 6

    def prepare(self) -> None:
        conf = json.loads(self.fleet.env["TEST_APP_CONF"]) | {"task_annotations": {"t.add": {"rate_limit": "1/h"}}}
        self.start(FIRST, env={"TEST_APP_CONF": json.dumps(conf)})
        limited = [self.send("t.add", 1, number) for number in range(3)]
        until(lambda: self.fleet.counts().keys() & set(limited), 20, lambda: f"none ran: {self.fleet.where()}")
        self.due = self.now() + self.DELAY_SECONDS
        self.delayed = [self.send("t.later", countdown=self.DELAY_SECONDS) for _ in range(2)]
        self.until_held(4)

    def inject(self) -> None:
        checked = self.operate("failover", "--dead")
        assert self.is_plain or checked["requeued_tasks"] == 0, f"taken from a live worker: {checked}"
        self.fleet.kill(FIRST)
        self.operate("failover", FIRST)
        self.start(SECOND)

    def check(self) -> None:
        starts = [event["at"] for event in self.fleet.events("start") if event["task"] in self.delayed]
        assert len(starts) == len(self.delayed), "an ETA task ran twice, or not at all"
        assert min(starts) >= self.due, "an ETA task ran before its time"
