"""Chaos under load: for two minutes ten workers join and die at random, and the leader of `watch` is killed too.

python -m tests.bench.bench_chaos [SECONDS] [SEED]
"""

import signal
import sys
from random import Random
from threading import Event, Thread
from typing import Any

from tests.support.agent_fleet import AgentFleet
from tests.support.fleet import FILE_TASK
from tests.support.watch_process import WatchProcess, start_watch
from tests.support.worker_churn import WorkerChurn


class Leaders:
    """Two `watch` processes: the leader is killed every 10 to 20 s and a new process is started."""

    def __init__(self, fleet: AgentFleet, seed: int) -> None:
        self._fleet, self._chance, self._stop = fleet, Random(seed), Event()
        self.all: list[WatchProcess] = []
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Leaders":
        self._start()
        self.all[0].wait_for("leading")
        self._start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for process in self.all for line in process.events(event)]

    def _start(self) -> None:
        self.all.append(start_watch(self._fleet, name=f"watch-{len(self.all)}"))

    def _run(self) -> None:
        while not self._stop.wait(10 + 10 * self._chance.random()):
            leading = [loop for loop in self.all if loop.process.poll() is None and loop.events("leading")]
            if leading:
                leading[0].signal(signal.SIGKILL)
                self._start()


def main(seconds: float, seed: int) -> int:
    with AgentFleet(env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "1"}) as fleet, Leaders(fleet, seed) as leaders:
        chaos = WorkerChurn(
            fleet, lambda nap: fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": nap}), workers=10, seed=seed
        )
        account = chaos.run(seconds)
        killed = sum(loop.process.poll() == -signal.SIGKILL for loop in leaders.all)
        print(
            f"workers: {chaos.deaths}, leaders killed: {killed}, tasks held by dead workers: {len(chaos.may_run_twice)}"
        )
        print(f"failed over: {len(leaders.lines('worker_failed_over'))}, errors: {leaders.lines('turn_failed')}")
        print(account)
        unexplained = account.duplicated - chaos.may_run_twice
        print(f"ran twice without having been held by a dead worker: {len(unexplained)}")
        return 1 if account.lost or account.stuck or account.unexpected or unexplained else 0


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    sys.exit(main(arguments[0] if arguments else 120.0, int(arguments[1]) if len(arguments) > 1 else 1))
