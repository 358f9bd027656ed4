"""Time of the commands `task why` and `tasks` with 200,000 waiting or ended tasks, against 200.

python -m tests.bench.bench_tasks
"""

import os
import subprocess
import sys
from random import Random
from time import perf_counter
from uuid import UUID

from morag_queue.broker.codec import ended_record
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.support.simulated_fleet import SimulatedFleet

FEW, MANY, TRIES = 200, 200_000, 5


def seconds(url: str, *args: str) -> float:
    """Return the time of the fastest of a few runs, each in a new process."""
    best = float("inf")
    for _ in range(TRIES):
        start = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "morag_queue", *args], check=True, capture_output=True,
            env={**os.environ, "REDIS_URL": url},
        )  # fmt: skip
        best = min(best, perf_counter() - start)
    return best


def fill(sim_fleet: SimulatedFleet, size: int) -> list[str]:
    random = Random(size)
    ids = [str(UUID(int=random.getrandbits(128), version=4)) for _ in range(size)]
    for first in range(0, size, 5000):
        sim_fleet.fill(ids[first : first + 5000])
    return ids


def end(sim_fleet: SimulatedFleet, ids: list[str]) -> None:
    """Write the ledger records and the index of completed tasks."""
    client, keys, now = sim_fleet.client, sim_fleet.keys, sim_fleet.broker.now()
    sim_fleet.submit("pattern")
    (entry,) = sim_fleet.broker.records(["pattern"]).values()
    sim_fleet.client.delete(keys.list("cpu_standard", 4))
    for first in range(0, len(ids), 5000):
        pipe = client.pipeline(transaction=False)
        for n, task_id in enumerate(ids[first : first + 5000], first):
            run = n * 7919 % 100_000 / 1000
            record = ended_record(
                {"priority": "NORMAL", "queue": "cpu_standard", "ended_at": now, "entry": dict(entry.fields)},
                state="completed", task=entry.task, lane="cpu_standard", worker="cpu-1", started_at=now - run,
                wait_seconds=1.0, run_seconds=run,
            )  # fmt: skip
            pipe.set(keys.task(task_id), record.encoded(), ex=3600)
            pipe.rpush(keys.ended(f"completed:{int(now // 60) - n % 59}"), f"{round(run * 1000)} {task_id}")
        pipe.execute()


def main() -> None:
    with Sandbox() as sandbox:
        server = Server(sandbox)
        sim_fleet = SimulatedFleet(server.url)
        sim_fleet.join("cpu-1", slots=4)
        sim_fleet.join("gpu-1", "gpu", slots=2)
        times: dict[int, dict[str, float]] = {}
        for size in (FEW, MANY):
            sim_fleet.beat("cpu-1")
            ids = fill(sim_fleet, size)
            depths = {"next": ids[0], "middle": ids[size // 2], "last": ids[-1]}
            times[size] = {
                f"task why, the {name}": seconds(sim_fleet.url, "task", "why", task_id, "--json")
                for name, task_id in depths.items()
            }
            times[size]["tasks, a page"] = seconds(sim_fleet.url, "tasks", "--json")
            times[size]["tasks --newest"] = seconds(sim_fleet.url, "tasks", "--newest", "--json")
            # The ledger does not record this move, so the command has to search all lanes for the task.
            sim_fleet.broker.moves.lane("cpu_standard", "cpu_batch", 4, size)
            times[size]["task why, after a move"] = seconds(sim_fleet.url, "task", "why", depths["middle"], "--json")
            times[size]["task why, by a prefix"] = seconds(sim_fleet.url, "task", "why", depths["middle"][:8], "--json")
            times[size]["tasks of a submission"] = seconds(sim_fleet.url, "tasks", "--submission", "none", "--json")
            sim_fleet.client.flushall()
            sim_fleet.join("cpu-1", slots=4)
            end(sim_fleet, ids)
            ended = ("tasks", "--state", "completed", "--json")
            times[size]["tasks, ended, newest"] = seconds(sim_fleet.url, *ended)
            times[size]["tasks, ended, slowest"] = seconds(sim_fleet.url, *ended, "--sort", "slowest")
            sim_fleet.client.flushall()
            sim_fleet.join("cpu-1", slots=4)
        for name, many in times[MANY].items():
            print(f"{name:26} {many * 1000:6.0f} ms with {MANY:,}, {many / times[FEW][name]:.2f} × the time with {FEW}")
        server.stop()


if __name__ == "__main__":
    main()
