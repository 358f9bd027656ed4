"""`.delay()` through `route_task`, in a fleet of 1,000 workers, against plain Celery."""

from collections.abc import Iterator
from itertools import cycle, islice

from morag_queue.core.model import Capability
from tests.support.fleet import Fleet
from tests.support.simulated_fleet import SimulatedFleet

from .process import answer
from .table import Measured, Row, Subject

WORKERS, CALLS = 1_000, 6_000

SCRIPT = """
import json, os, sys, time
from celery import Celery
app = Celery("x", broker=os.environ["REDIS_URL"], set_as_current=False)
app.conf.task_ignore_result = True
if sys.argv[1] == "routed":
    import morag_queue
    app.conf.task_routes = (morag_queue.route_task,)

@app.task(name="morag.worker.process_file_task")
def process_file_task(path, content_type=None, options=None):
    pass

took = []
for number in range(int(sys.argv[3])):
    began = time.perf_counter()
    process_file_task.delay(sys.argv[2], "document")
    took.append(1000 * (time.perf_counter() - began))
took = took[100:]  # the first call connects and reads the fleet
print(json.dumps([sum(took) / len(took), max(took)]))
"""


def pairs() -> Iterator[Measured]:
    with Fleet() as fleet:
        path = fleet.dir / "report.txt"
        path.write_text("MoRAG " * 300)
        sim_fleet = SimulatedFleet(fleet.url)
        names = [f"worker-{number}" for number in range(WORKERS)]
        for name, capability in zip(names, islice(cycle(Capability), WORKERS), strict=True):
            sim_fleet.join(name, capability.value, slots=2)
        while True:
            for name in names:
                sim_fleet.beat(name)
            figures = []
            for kind in ("routed", "plain"):
                figures.append(answer(SCRIPT, fleet.env, fleet.dir, kind, str(path), str(CALLS)))
                fleet.redis.delete(*fleet.redis.scan_iter("c*", _type="list"))
            (mean, longest), (plain_mean, plain_longest) = figures
            yield {"delay": (mean, plain_mean), "delay-longest": (longest, plain_longest)}


PEER = "plain `.delay()`"
SUBJECTS = (
    Subject(
        (
            Row("delay", f"`.delay()` through `route_task`, {WORKERS:,} workers", PEER, "ms", bar=1.15),
            Row(
                "delay-longest", f"the longest of {CALLS:,} such calls, {WORKERS:,} workers", PEER, "ms", bar=5.0,
                is_absolute=True,
            ),
        ),
        pairs,
    ),
)  # fmt: skip
