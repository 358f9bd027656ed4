"""Time of a failover: planning for 1,000 workers, and its moves against a pipelined LMOVE loop.

python -m tests.bench.bench_failover
"""

from collections.abc import Callable
from time import perf_counter

import redis

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.keys import Keys
from morag_queue.broker.lanes import Moves
from morag_queue.core.model import QueuePriority, QueueType, TaskQueueEntry
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.drain import plan_drain
from morag_queue.core.recovery.failover import plan_failover
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.core.fleets import fleet, held, queued, worker

WORKERS, MESSAGES, LEVEL = 1000, 100_000, 6
SOURCE, TARGET = "cpu_standard.worker-1", "cpu_standard"


def seconds(action: Callable[[], object]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


def bench_planning() -> None:
    names = [f"worker-{n}" for n in range(WORKERS)]
    snapshot = fleet(
        *(worker(name) for name in names),
        held=tuple(message for name in names for message in held(name)),
        lanes=tuple(queued(QueueType.CPU_STANDARD, 3, name) for name in names),
    )
    one = seconds(lambda: plan_failover(snapshot, names[:1], Policy(), Queues(), plan_id="p", attempts={}))
    many = seconds(lambda: plan_failover(snapshot, names[:100], Policy(), Queues(), plan_id="p", attempts={}))
    drained = seconds(lambda: plan_drain(snapshot, names[0], Queues(), plan_id="p"))
    print(f"{WORKERS} workers: failover of 1 in {one * 1e3:.2f} ms, of 100 in {many * 1e3:.2f} ms; ", end="")
    print(f"a drain in {drained * 1e3:.2f} ms")


def fill(client: redis.Redis, keys: Keys) -> None:
    builder = MessageBuilder()
    pipe = client.pipeline(transaction=False)
    for n in range(MESSAGES):
        entry = TaskQueueEntry(
            task_id=f"low-{n:06d}", task="morag.worker.process_file_task", args=("/data/report.txt", "document", {}),
            source="/data/report.txt", priority=QueuePriority.LOW, queue=QueueType.CPU_STANDARD, lane=SOURCE,
            level=LEVEL, enqueued_at=1.0, worker="worker-1",
        )  # fmt: skip
        pipe.lpush(keys.list(SOURCE, LEVEL), builder.message(entry)[0])
        if n % 1000 == 999:
            pipe.execute()


def lmove_loop(client: redis.Redis, source: str, target: str) -> None:
    pipe = client.pipeline(transaction=False)
    for n in range(MESSAGES):
        pipe.lmove(source, target, "RIGHT", "LEFT")
        if n % 1000 == 999:
            pipe.execute()


def bench_moves() -> None:
    with Sandbox() as sandbox:
        server, keys = Server(sandbox), Keys()
        with redis.Redis.from_url(server.url) as client:
            fill(client, keys)
            ours = seconds(lambda: Moves(client, keys).lane(SOURCE, TARGET, LEVEL, MESSAGES, keeps_gpu=True))
            loop = seconds(lambda: lmove_loop(client, keys.list(TARGET, LEVEL), "target"))
    print(f"{MESSAGES} messages: {ours:.2f} s against {loop:.2f} s of a pipelined LMOVE loop, {ours / loop:.2f} x")


if __name__ == "__main__":
    bench_planning()
    bench_moves()
