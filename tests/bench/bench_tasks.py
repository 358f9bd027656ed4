"""`task why` on any of 200,000 waiting tasks, and a page of `tasks`, against 200 waiting: the whole command.

python -m tests.bench.bench_tasks
"""

import os
import subprocess
import sys
from random import Random
from time import perf_counter
from uuid import UUID

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.support.simulated_fleet import SimulatedFleet

FEW, MANY, TRIES = 200, 200_000, 5


def seconds(url: str, *args: str) -> float:
    """The best of a few runs, each a process of its own."""
    best = float("inf")
    for _ in range(TRIES):
        began = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "morag_queue", *args], check=True, capture_output=True,
            env={**os.environ, "REDIS_URL": url},
        )  # fmt: skip
        best = min(best, perf_counter() - began)
    return best


def fill(stage: SimulatedFleet, size: int) -> list[str]:
    random = Random(size)
    ids = [str(UUID(int=random.getrandbits(128), version=4)) for _ in range(size)]
    for start in range(0, size, 5000):
        stage.fill(ids[start : start + 5000])
    return ids


def main() -> None:
    with Sandbox() as sandbox:
        server = Server(sandbox)
        stage = SimulatedFleet(server.url)
        stage.join("cpu-1", slots=4)
        stage.join("gpu-1", "gpu", slots=2)
        took: dict[int, dict[str, float]] = {}
        for size in (FEW, MANY):
            stage.beat("cpu-1")
            ids = fill(stage, size)
            depths = {"next": ids[0], "middle": ids[size // 2], "last": ids[-1]}
            took[size] = {
                f"task why, the {name}": seconds(stage.url, "task", "why", one, "--json")
                for name, one in depths.items()
            }
            took[size]["tasks, a page"] = seconds(stage.url, "tasks", "--json")
            took[size]["tasks --newest"] = seconds(stage.url, "tasks", "--newest", "--json")
            # A move behind the ledger's back: the task is looked for everywhere.
            stage.broker.moves.lane("cpu_standard", "cpu_batch", 4, size)
            took[size]["task why, moved since"] = seconds(stage.url, "task", "why", depths["middle"], "--json")
            took[size]["task why, by a beginning"] = seconds(stage.url, "task", "why", depths["middle"][:8], "--json")
            stage.client.flushall()
            stage.join("cpu-1", slots=4)
        for name, many in took[MANY].items():
            print(f"{name:26} {many * 1000:6.0f} ms with {MANY:,}, {many / took[FEW][name]:.2f} of that with {FEW}")
        server.stop()


if __name__ == "__main__":
    main()
