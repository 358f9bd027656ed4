"""Time of one completion, from the start of its process, with 200,000 waiting tasks and 100 workers.

python -m tests.bench.bench_completion
"""

import os
import subprocess
import sys
from time import perf_counter

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.bench.bench_tasks import MANY, fill
from tests.support.simulated_fleet import SimulatedFleet

TRIES = 9


def milliseconds(url: str, *words: str) -> tuple[float, int]:
    """Return the median time of a completion in a new process, and the number of offers."""
    env = os.environ | {"REDIS_URL": url, "_MORAG_QUEUE_COMPLETE": "zsh"}
    times = []
    for _ in range(TRIES):
        start = perf_counter()
        done = subprocess.run([sys.executable, "-m", "morag_queue", *words], env=env, check=True, capture_output=True)
        times.append((perf_counter() - start) * 1000)
    return sorted(times)[TRIES // 2], len(done.stdout.splitlines()) - 1


def main() -> None:
    with Sandbox() as sandbox:
        sim_fleet = SimulatedFleet(Server(sandbox).url)
        for number in range(100):
            sim_fleet.join(f"worker-{number}")
        ids = fill(sim_fleet, MANY)
        for words in (
            ("dra",), ("drain", "worker-"), ("pause", ""), ("task", "why", ""), ("task", "why", ids[7][:2]),
            ("task", "why", ids[7][:6]), ("task", "why", "unknown"), ("journal", "undo", ""),
        ):  # fmt: skip
            took, offers = milliseconds(sim_fleet.url, *words)
            print(f"{' '.join(words) or '-':30} {took:6.0f} ms {offers:4} offers")


if __name__ == "__main__":
    main()
