"""A worker with the agent and one of stock Celery, in the same run: how fast each picks up and works off.

python -m tests.bench.bench_agent [tasks]

The stock worker has the same four lanes, priority steps, late acknowledgement and prefetch.
"""

import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

WORKER, TASKS, PICKUPS, IDLE_SECONDS, ROUNDS = "worker-cpu-1", 2000, 60, 5.0, 3
LANES = ("cpu_standard", "cpu_batch", f"cpu_standard.{WORKER}", f"cpu_batch.{WORKER}")


@contextmanager
def one_worker(is_stock: bool, prefetch: int) -> Iterator[Fleet]:
    conf = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": prefetch,
        "broker_transport_options": {"priority_steps": list(range(10))},
    }
    with Fleet(agent=not is_stock, conf=conf) as fleet:
        fleet.start_worker(WORKER, wait=False, options=("-Q", ",".join(LANES), "-l", "WARNING"))
        warm = fleet.send("cpu_standard")
        fleet.until_ran([warm])
        yield fleet


def pickup_ms(fleet: Fleet) -> list[float]:
    """From just before the push to the first line of the task, one at a time, at random pauses."""
    chance, taken = random.Random(1), []
    for _ in range(PICKUPS):
        time.sleep(chance.uniform(0.01, 0.06))
        began = time.time()
        task = fleet.send(chance.choice(LANES), level=chance.randrange(10))
        [start] = until(lambda task=task: [one for one in fleet.events("start") if one["task"] == task], 10, task)
        taken.append((start["at"] - began) * 1000)
    return taken


def tasks_a_second(fleet: Fleet, tasks: int) -> float:
    """Of tasks that do next to nothing, all queued before the first begins."""
    gate = fleet.send("cpu_standard", level=0, sleep=1 + tasks / 1500)
    sent = [fleet.send(LANES[number % len(LANES)], level=number % 10) for number in range(tasks)]
    fleet.until_ran([gate, *sent], 300)
    ends = {one["task"]: one["at"] for one in fleet.events("end")}
    return tasks / (max(ends[task] for task in sent) - ends[gate])


def family(fleet: Fleet) -> list[psutil.Process]:
    main = psutil.Process(fleet.workers[WORKER].pid)
    return [main, *main.children(recursive=True)]


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def idle_percent(fleet: Fleet) -> float:
    processes = family(fleet)
    before = cpu_seconds(processes)
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(processes) - before) / IDLE_SECONDS


def main(tasks: int) -> None:
    found: dict[str, dict[bool, list[float]]] = defaultdict(lambda: {False: [], True: []})
    for prefetch, is_stock in [(prefetch, is_stock) for prefetch in (1, 4) for is_stock in (False, True)] * ROUNDS:
        with one_worker(is_stock, prefetch) as fleet:
            if prefetch == 1:
                times = sorted(pickup_ms(fleet))
                found["pickup p50, ms"][is_stock].append(statistics.median(times))
                found["pickup p95, ms"][is_stock].append(times[int(len(times) * 0.95)])
                found["CPU of an idle worker, %"][is_stock].append(idle_percent(fleet))
            processes = family(fleet)
            before = cpu_seconds(processes)
            found[f"tasks/s, prefetch {prefetch}"][is_stock].append(tasks_a_second(fleet, tasks))
            used = (cpu_seconds(processes) - before) / tasks * 1000
            found[f"CPU ms a task, prefetch {prefetch}"][is_stock].append(used)
    for what, by in found.items():
        agent, stock = (statistics.median(by[is_stock]) for is_stock in (False, True))
        ratio = f"{agent / stock:.2f}" if stock else "-"
        print(f"{what:26} agent {agent:8.2f}   stock {stock:8.2f}   ratio {ratio}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TASKS)
