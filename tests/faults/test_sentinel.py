"""A primary that is killed under load, and replaced by its replica: every client continues by itself.

Replication is asynchronous: Redis acknowledges what it has not replicated yet, and loses that with the primary. So a
submit counts as acknowledged here once the replica has it too (WAIT).
"""

from collections.abc import Callable
from threading import Event, Thread
from uuid import uuid4

import pytest
from celery import Celery

from morag_queue import route_task
from morag_queue.broker.redis import RedisBroker
from morag_queue.errors import MoragQueueError
from morag_queue.local.waiting import until
from tests.faults.account import account_of
from tests.support.broker_drivers import outgoing_message
from tests.support.sentinel import OPTIONS, SentinelFleet
from tests.support.watch_process import start_watch

WORKERS = ("worker-cpu-1", "worker-cpu-2")
REFUSALS = {"cannot reach the broker sentinel", "the broker sentinel"}


class Load:
    """Submits tasks one after another; each id again until it is acknowledged and replicated."""

    def __init__(self, fleet: SentinelFleet) -> None:
        self._fleet, self._stop = fleet, Event()
        self.attempted: list[str] = []
        self.acknowledged: list[str] = []
        self.errors: list[str] = []
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def until_acknowledged(self, number: int) -> None:
        until(lambda: len(self.acknowledged) >= number, 60, lambda: f"{len(self.acknowledged)}: {self.errors[-3:]}")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        broker = RedisBroker(self._fleet.settings)
        while not self._stop.is_set():
            self.attempted.append(str(uuid4()))
            while not self._is_safe(broker, self.attempted[-1]):
                self._stop.wait(0.05)
            self.acknowledged.append(self.attempted[-1])
        broker.client.close()

    def _is_safe(self, broker: RedisBroker, task_id: str) -> bool:
        was_over = self._fleet.has_failed_over
        try:
            broker.submit([outgoing_message(task_id, task="t.nap", args=(0.02,))])  # refused: the server has it
            with broker.translated():
                return was_over or broker.client.wait(1, 500) == 1
        except MoragQueueError as error:
            self.errors.append(str(error))
            return False


@pytest.mark.slow
@pytest.mark.parametrize("server", ["valkey", "redis"])
def test_nothing_replicated_is_lost_when_a_primary_fails_over_under_load(
    server: str, make_fleet: Callable[..., SentinelFleet]
) -> None:
    fleet = make_fleet(SentinelFleet, server=server)
    watch = start_watch(fleet)
    for worker in WORKERS:
        fleet.start_worker(worker)
    watch.wait_for("leading")
    load = Load(fleet)
    load.until_acknowledged(50)
    with producer(fleet) as app:
        assert add(app) == 3

        fleet.server.kill()
        until(lambda: fleet.has_failed_over, 30, lambda: fleet.log("sentinel"))

        load.until_acknowledged(len(load.acknowledged) + 50)
        load.stop()
        assert add(app) == 3
    watch.wait_for("broker_back")
    fleet.until_ran(load.acknowledged, 60)
    fleet.until_nothing_is_unacked(60)
    assert {row["status"] for row in fleet.run_json("stats")["workers"]} == {"online"}
    assert_nothing_lost(fleet, load)
    assert load.errors
    assert {error.partition(":")[0] for error in load.errors} <= REFUSALS
    # Celery logs the loss of a worker's connection with its traceback.
    assert "Traceback" not in fleet.log("watch")


def producer(fleet: SentinelFleet) -> Celery:
    """An app with our router and the result backend on the fleet's servers."""
    url = fleet.settings.redis_url
    app = Celery("app", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_routes=(route_task,), broker_transport_options={**OPTIONS, "priority_steps": list(range(10))},
        result_backend_transport_options=OPTIONS,
    )  # fmt: skip
    return app


def add(app: Celery) -> int:
    sum_of: int = app.signature("t.add", (1, 2)).set(queue="cpu_standard").delay().get(timeout=30)
    return sum_of


def assert_nothing_lost(fleet: SentinelFleet, load: Load) -> None:
    """A task that ended, or was claimed, right before the failover runs again where that was not replicated."""
    own = {*load.attempted}
    ended = [one["task"] for one in fleet.events("end") if one["task"] in own]
    account = account_of(fleet.redis, fleet.keys, attempted=own, acknowledged=load.acknowledged, ended=ended)
    print(f"account: {account}")
    assert account.broken_promises(may_run_twice=own) == []
    assert len(account.duplicated) <= 2 * len(WORKERS)
