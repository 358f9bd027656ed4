"""How long failover takes: planning on 1,000 workers, and its moves against a client's pipelined LMOVE loop.

Run: python -m tests.bench.bench_failover
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
from morag_queue.core.recovery.requeue import HeldTasks
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.core.fleets import fleet, held, queued, worker

WORKERS, MESSAGES, LEVEL = 1000, 100_000, 6
SOURCE, TARGET = "cpu_standard.worker-1", "cpu_standard"


def seconds(action: Callable[[], object]) -> float:
    began = perf_counter()
    action()
    return perf_counter() - began


def planning() -> None:
    names = [f"worker-{n}" for n in range(WORKERS)]
    snapshot = fleet(
        *(worker(name) for name in names),
        held=tuple(one for name in names for one in held(name)),
        lanes=tuple(queued(QueueType.CPU_STANDARD, 3, name) for name in names),
    )
    one = seconds(lambda: plan_failover(snapshot, Policy(), Queues(), names[:1], HeldTasks(), plan_id="p"))
    many = seconds(lambda: plan_failover(snapshot, Policy(), Queues(), names[:100], HeldTasks(), plan_id="p"))
    drained = seconds(lambda: plan_drain(snapshot, Queues(), names[0], plan_id="p"))
    print(f"{WORKERS} workers: failover of 1 in {one * 1e3:.2f} ms, of 100 in {many * 1e3:.2f} ms; ", end="")
    print(f"a drain in {drained * 1e3:.2f} ms")


def fill(client: redis.Redis, keys: Keys) -> None:
    wire = MessageBuilder()
    pipe = client.pipeline(transaction=False)
    for n in range(MESSAGES):
        entry = TaskQueueEntry(
            task_id=f"low-{n:06d}", task="morag.worker.process_file_task", args=("/data/report.txt", "document", {}),
            source="/data/report.txt", priority=QueuePriority.LOW, queue=QueueType.CPU_STANDARD, lane=SOURCE,
            level=LEVEL, enqueued_at=1.0, worker="worker-1",
        )  # fmt: skip
        pipe.lpush(keys.list(SOURCE, LEVEL), wire.message(entry)[0])
        if n % 1000 == 999:
            pipe.execute()


def plain_loop(client: redis.Redis, source: str, target: str) -> None:
    pipe = client.pipeline(transaction=False)
    for n in range(MESSAGES):
        pipe.lmove(source, target, "RIGHT", "LEFT")
        if n % 1000 == 999:
            pipe.execute()


def moving() -> None:
    with Sandbox() as sandbox:
        server, keys = Server(sandbox), Keys()
        with redis.Redis.from_url(server.url) as client:
            fill(client, keys)
            ours = seconds(lambda: Moves(client, keys).lane(SOURCE, TARGET, LEVEL, MESSAGES, keeps_gpu=True))
            plain = seconds(lambda: plain_loop(client, keys.list(TARGET, LEVEL), "yard"))
    print(f"{MESSAGES} messages: {ours:.2f} s against {plain:.2f} s of a pipelined LMOVE loop, {ours / plain:.2f} x")


if __name__ == "__main__":
    planning()
    moving()
