"""A message that was moved to a worker's lane, and everything that Celery does to send it back."""

import signal
from typing import ClassVar

from .fault import LANE, Fault

WORKER = "worker-cpu-1"
LEVEL = 4


class MovedMessage(Fault):
    number = 8
    name = "messages moved to a worker's lane, then rejected, retried, restored at its shutdown, their process killed"
    promise = "they stay in the lane"
    conf: ClassVar = {"worker_prefetch_multiplier": 4}

    def prepare(self) -> None:
        self.start(WORKER, queues=[self.own_lane(WORKER)])
        self.fleet.kill(WORKER, signal.SIGSTOP)  # so that it takes none before all are moved
        directory = self.fleet.dir
        self.tasks = [
            self.hold(level=LEVEL),
            self.send("t.requeue_once", str(directory / "rejected"), level=LEVEL),
            self.send("t.retry", 1, level=LEVEL),
            self.send("t.die_once", str(directory / "died"), level=LEVEL),
        ]
        self.move()
        self.fleet.kill(WORKER, signal.SIGCONT)
        self.until_started(self.tasks[0])
        self.until_held(len(self.tasks))

    def inject(self) -> None:
        process = self.process(WORKER)
        process.terminate()
        self.release()
        process.wait(30)
        del self.fleet.workers[WORKER]
        self.start(WORKER, queues=[self.own_lane(WORKER)])

    def move(self) -> None:
        if not self.is_plain:
            self.operate("task", "move", *self.tasks, "--to-worker", WORKER, "--yes")
            return
        keys = self.fleet.keys  # Celery has no command for it; its messages keep the address of the old lane
        source, target = keys.list(LANE, LEVEL), keys.list(self.own_lane(WORKER), LEVEL)
        while self.fleet.redis.lmove(source, target, "RIGHT", "LEFT"):
            pass

    def check(self) -> None:
        lanes = {event["lane"] for event in self.fleet.events("start")}
        assert lanes == {self.own_lane(WORKER)}, f"started from {lanes}"
