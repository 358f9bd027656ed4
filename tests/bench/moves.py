"""Moving the messages of a dead worker, against a client's pipelined LMOVE loop."""

from collections.abc import Iterator
from time import perf_counter

from morag_queue.broker.lanes import Moves
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.support.simulated_fleet import SimulatedFleet

from .table import Measured, Row, Subject

MESSAGES, LEVEL = 100_000, 4
SOURCE, TARGET = "cpu_standard.worker-1", "cpu_standard"


def pairs() -> Iterator[Measured]:
    with Sandbox() as sandbox:
        sim_fleet = SimulatedFleet(Server(sandbox).url)
        client, keys = sim_fleet.client, sim_fleet.keys
        sim_fleet.fill(f"task-{number:06d}" for number in range(MESSAGES))
        moves = Moves(client, keys)
        while True:
            moves.lane(TARGET, SOURCE, LEVEL, MESSAGES)  # so that each message carries the address of its lane
            began = perf_counter()
            moves.lane(SOURCE, TARGET, LEVEL, MESSAGES, keeps_gpu=True)
            moved = perf_counter()
            pipe = client.pipeline(transaction=False)
            for number in range(1, MESSAGES + 1):
                pipe.lmove(keys.list(TARGET, LEVEL), "yard", "RIGHT", "LEFT")
                if number % 1000 == 0:
                    pipe.execute()
            yield {"move": (moved - began, perf_counter() - moved)}
            client.rename("yard", keys.list(TARGET, LEVEL))


SUBJECTS = (
    Subject(
        (Row("move", f"moving {MESSAGES:,} messages of a dead worker", "a pipelined LMOVE loop", "s", bar=0.5),), pairs
    ),
)
