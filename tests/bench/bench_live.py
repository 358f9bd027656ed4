"""What a refresh of `stats --live` costs: `python -m tests.bench.bench_live`.

100 workers with three tasks in hand each, 200,000 queued, an hour of figures, on a real server; drawn on 200×60. CPU
time of this process, without the first look (it reads the whole hour). Printed against what Rich's own tables take for
the same picture, and against the promise of 50 ms.
"""

import io
import json
import sys
import time

import redis
from rich.console import Console

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.histogram import LAST_BUCKET
from morag_queue.core.model import Capability, QueueType
from morag_queue.local.sandbox import Nest
from morag_queue.local.server import Server
from morag_queue.operations.stats import HISTORY, FleetWatcher
from morag_queue.settings import Settings
from morag_queue.view.live import render
from morag_queue.view.live_state import LiveState
from morag_queue.view.stats import stats_view
from tests.support.records import register

WORKERS, QUEUED, LOOKS, PROMISED_MS = 100, 200_000, 20, 50.0
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


def main() -> int:
    with Nest() as nest:
        settings = Settings(redis_url=Server(nest).url)
        broker = RedisBroker(settings)
        fill(broker.client, broker.now())
        watcher = FleetWatcher(broker, settings)
        console = Console(file=io.StringIO(), width=SIZE[0], height=SIZE[1], force_terminal=True, color_system="256")
        frame = watcher.observe()
        console.print(render(frame, *SIZE, LiveState()), end="")
        looking, drawing, tables = 0.0, 0.0, 0.0
        for _ in range(LOOKS):
            start = time.process_time()
            frame = watcher.observe()
            looked = time.process_time()
            console.print(render(frame, *SIZE, LiveState()), end="")
            drawn = time.process_time()
            console.print(stats_view(frame.stats))
            looking, drawing, tables = (
                looking + looked - start, drawing + drawn - looked, tables + time.process_time() - drawn,
            )  # fmt: skip
    look_ms, draw_ms, table_ms = (1000 * one / LOOKS for one in (looking, drawing, tables))
    print(f"{WORKERS} workers, {QUEUED:,} queued: a look {look_ms:.1f} ms, drawing {draw_ms:.1f} ms of CPU")
    print(f"drawing is {draw_ms / table_ms:.2f} × what Rich's tables take ({table_ms:.1f} ms)")
    print(f"a refresh is {(look_ms + draw_ms) / PROMISED_MS:.2f} × the {PROMISED_MS:.0f} ms that are promised")
    return 0 if look_ms + draw_ms <= PROMISED_MS else 1


if __name__ == "__main__":
    sys.exit(main())
