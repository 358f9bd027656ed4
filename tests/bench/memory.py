"""The server's memory for one queued task, against its message alone.

The message is the one that we queue, with our header: a plain `send_task` queues one that is shorter by that header.
"""

from collections.abc import Iterator

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.support.simulated_fleet import SimulatedFleet

from .table import Measured, Row, Subject

TASKS = 50_000


def pairs() -> Iterator[Measured]:
    while True:
        with Sandbox() as sandbox:
            sim_fleet = SimulatedFleet(Server(sandbox).url)
            sim_fleet.join("worker-cpu-1")
            source = sandbox.dir / "report.txt"
            source.write_text("MoRAG " * 300)
            sim_fleet.submit("first", source=str(source), content_type="document")
            empty = used_memory(sim_fleet)
            ids = (f"{number:08d}-6a1f-4b7e-9a37-3c2f5d0e8b41" for number in range(TASKS))
            sim_fleet.submit(*ids, source=str(source), content_type="document")
            ours = (used_memory(sim_fleet) - empty) / TASKS
            texts = [text for key in lists(sim_fleet) for text in sim_fleet.client.lrange(key, 0, -1)]
        with Sandbox() as sandbox:
            sim_fleet = SimulatedFleet(Server(sandbox).url)
            empty = used_memory(sim_fleet)
            for first in range(0, len(texts), 500):
                sim_fleet.client.lpush("yard", *texts[first : first + 500])
            yield {"memory": (ours, (used_memory(sim_fleet) - empty) / len(texts))}


def lists(sim_fleet: SimulatedFleet) -> list[bytes]:
    return list(sim_fleet.client.scan_iter("c*", _type="list"))


def used_memory(sim_fleet: SimulatedFleet) -> int:
    """Bytes, without the buffers of a connection that has just sent much."""
    sim_fleet.client.connection_pool.disconnect()
    return int(sim_fleet.client.info("memory")["used_memory"])


SUBJECTS = (
    Subject(
        (Row("memory", "memory of the server for a queued task", "its message alone", "B", bar=1.25),), pairs, count=2
    ),
)
