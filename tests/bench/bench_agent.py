"""Pickup latency, throughput and CPU time of a worker with the agent, against plain Celery in the same run.

python -m tests.bench.bench_agent [TASKS]

The plain worker has the same four lanes, priority steps, late acknowledgement and prefetch.
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
def one_worker(is_plain: bool, prefetch: int) -> Iterator[Fleet]:
    """Run one worker, with the agent or plain, that has already run a task."""
    conf = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": prefetch,
        "broker_transport_options": {"priority_steps": list(range(10))},
    }
    with Fleet(agent=not is_plain, conf=conf) as fleet:
        fleet.start_worker(WORKER, wait=False, options=("-Q", ",".join(LANES), "-l", "WARNING"))
        warm = fleet.send("cpu_standard")
        fleet.until_ran([warm])
        yield fleet


def pickup_ms(fleet: Fleet) -> list[float]:
    """Return the times from the push of a task to its first line, for single tasks at random intervals."""
    rng, taken = random.Random(1), []
    for _ in range(PICKUPS):
        time.sleep(rng.uniform(0.01, 0.06))
        began = time.time()
        task = fleet.send(rng.choice(LANES), level=rng.randrange(10))
        [start] = until(lambda task=task: [event for event in fleet.events("start") if event["task"] == task], 10, task)
        taken.append((start["at"] - began) * 1000)
    return taken


def tasks_a_second(fleet: Fleet, tasks: int) -> float:
    """Return the throughput for nearly empty tasks that are all queued before the first one starts."""
    gate = fleet.send("cpu_standard", level=0, sleep=1 + tasks / 1500)
    sent = [fleet.send(LANES[number % len(LANES)], level=number % 10) for number in range(tasks)]
    fleet.until_ran([gate, *sent], 300)
    ends = {event["task"]: event["at"] for event in fleet.events("end")}
    return tasks / (max(ends[task] for task in sent) - ends[gate])


def worker_processes(fleet: Fleet) -> list[psutil.Process]:
    main = psutil.Process(fleet.workers[WORKER].pid)
    return [main, *main.children(recursive=True)]


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def idle_percent(fleet: Fleet) -> float:
    processes = worker_processes(fleet)
    before = cpu_seconds(processes)
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(processes) - before) / IDLE_SECONDS


def main(tasks: int) -> None:
    measured: dict[str, dict[bool, list[float]]] = defaultdict(lambda: {False: [], True: []})
    for prefetch, is_plain in [(prefetch, is_plain) for prefetch in (1, 4) for is_plain in (False, True)] * ROUNDS:
        with one_worker(is_plain, prefetch) as fleet:
            if prefetch == 1:
                times = sorted(pickup_ms(fleet))
                measured["pickup p50, ms"][is_plain].append(statistics.median(times))
                measured["pickup p95, ms"][is_plain].append(times[int(len(times) * 0.95)])
                measured["CPU of an idle worker, %"][is_plain].append(idle_percent(fleet))
            processes = worker_processes(fleet)
            before = cpu_seconds(processes)
            measured[f"tasks/s, prefetch {prefetch}"][is_plain].append(tasks_a_second(fleet, tasks))
            used = (cpu_seconds(processes) - before) / tasks * 1000
            measured[f"CPU ms a task, prefetch {prefetch}"][is_plain].append(used)
    for metric, values in measured.items():
        agent, plain = (statistics.median(values[is_plain]) for is_plain in (False, True))
        ratio = f"{agent / plain:.2f}" if plain else "-"
        print(f"{metric:26} agent {agent:8.2f}   plain {plain:8.2f}   ratio {ratio}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TASKS)
