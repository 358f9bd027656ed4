"""The cost of a refresh of `stats --live`: `python -m tests.bench.bench_live`.

100 workers that hold three tasks each, 200,000 queued tasks and an hour of counters on a real server; drawn on 200×60.
Measures the CPU time of this process without the first frame, which reads the whole hour. Prints the ratios to Rich's
own tables of the same columns, and to the limit of 50 ms.
"""

import io
import json
import sys
import time

import redis
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.histogram import LAST_BUCKET
from morag_queue.core.model import Capability, QueueType
from morag_queue.core.stats import FleetStats
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.operations.live_stats import HISTORY, FleetWatcher
from morag_queue.settings import Settings
from morag_queue.view.live import render
from morag_queue.view.live_state import LiveState
from morag_queue.view.stats_columns import QUEUE_COLUMNS, WORKER_COLUMNS, table_columns
from tests.support.records import register

WORKERS, QUEUED, FRAMES, LIMIT_MS = 100, 200_000, 20, 50.0
SIZE = (200, 60)


def fill(client: redis.Redis, now: float) -> None:
    text = json.dumps({"body": "", "headers": {"id": "x", "task": "t"}, "properties": {}})
    for level in range(10):
        key = "cpu_batch" + (f"\x06\x16{level}" if level else "")
        for _ in range(QUEUED // 10 // 1000):
            client.lpush(key, *[text] * 1000)
    for n in range(WORKERS):
        register(client, f"worker-{n}", slots=3, capability=list(Capability)[n % 3], queues=tuple(QueueType))
        client.sadd("mq:lanes", *(f"{queue}.worker-{n}" for queue in QueueType))
        for k in range(3):
            task = f"task-{n}-{k}"
            held = [f"worker-{n}", f"worker-{n}.run", task, "cpu_batch", 4, round(now * 1000)]
            client.hset("mq:held", task, json.dumps(held))
            client.set(f"mq:task:{task}", json.dumps({"state": "queued", "source": f"/media/{task}.mp4"}))
    pipe = client.pipeline()
    for ago in range(HISTORY):
        figures = {
            f"{queue}|{name}": 7 for queue in QueueType for name in ("arrived", "completed", "wait_ms", "run_ms")
        }
        for queue in QueueType:
            figures |= {f"{queue}|{kind}|{n}": 1 for kind in ("wait", "run") for n in range(30, LAST_BUCKET - 40, 2)}
        pipe.hset(f"mq:minute:{int(now) // 60 - ago}", mapping=figures)
    for n in range(100):
        pipe.xadd(
            "mq:journal", {"entry": json.dumps({"who": "a", "verb": "v", "subject": str(n), "changes": {"n": n}})}
        )
    pipe.execute()


def rich_tables(stats: FleetStats) -> Group:
    """The columns of `stats` in Rich's own tables."""
    tables = []
    for columns in (table_columns(QUEUE_COLUMNS, stats.queues), table_columns(WORKER_COLUMNS, stats.workers)):
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True)
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*(Text(words, style=style) for words, style in row))
        tables.append(table)
    return Group(*tables)


def main() -> int:
    with Sandbox() as sandbox:
        settings = Settings(redis_url=Server(sandbox).url)
        broker = RedisBroker(settings)
        fill(broker.client, broker.now())
        watcher = FleetWatcher(broker, settings)
        console = Console(file=io.StringIO(), width=SIZE[0], height=SIZE[1], force_terminal=True, color_system="256")
        frame = watcher.observe()
        console.print(render(frame, *SIZE, LiveState()), end="")
        observing, drawing, tables = 0.0, 0.0, 0.0
        for _ in range(FRAMES):
            start = time.process_time()
            frame = watcher.observe()
            observed = time.process_time()
            console.print(render(frame, *SIZE, LiveState()), end="")
            drawn = time.process_time()
            console.print(rich_tables(frame.stats))
            observing, drawing = observing + observed - start, drawing + drawn - observed
            tables += time.process_time() - drawn
    observe_ms, draw_ms, table_ms = (1000 * seconds / FRAMES for seconds in (observing, drawing, tables))
    total_ms = observe_ms + draw_ms
    print(f"{WORKERS} workers, {QUEUED:,} queued: observing {observe_ms:.1f} ms, drawing {draw_ms:.1f} ms of CPU")
    print(f"drawing is {draw_ms / table_ms:.2f} × the time of Rich's tables ({table_ms:.1f} ms)")
    print(f"a refresh is {total_ms / LIMIT_MS:.2f} × the limit of {LIMIT_MS:.0f} ms")
    return 0 if total_ms <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
