"""Workers inside another process: `celery.contrib.testing`, which test suites use, and `app.Worker`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery, _state, signals
from celery.contrib.testing.worker import start_worker
from celery.result import allow_join_result
from kombu.asynchronous import set_event_loop

from morag_queue.agent import install
from morag_queue.broker.keys import Keys
from morag_queue.broker.workers import Cordons
from morag_queue.core.model import Cordon, WorkerStatus
from morag_queue.local.waiting import until

KEYS = Keys()

pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),  # Celery's result backend
    pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning"),  # where root runs the tests
]


@pytest.fixture(autouse=True)
def celery_globals() -> Iterator[None]:
    """Keep Celery's logging away from that of pytest, and restore its current app, which the test support replaces."""
    before = _state.default_app, _state._tls.current_app

    def configure_nothing(**_: Any) -> None: ...

    signals.setup_logging.connect(configure_nothing)
    yield
    signals.setup_logging.disconnect(configure_nothing)
    _state.default_app, _state._tls.current_app = before
    set_event_loop(None)  # of a worker that was built and not started


@pytest.fixture
def app(valkey: str) -> Iterator[Celery]:
    with Celery("embedded", broker=valkey, backend=valkey, set_as_current=False) as app:
        install(app, worker_type="cpu", heartbeat_seconds=0.1)
        app.loader.import_module("celery.contrib.testing.tasks")

        @app.task(name="add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        yield app


@contextmanager
def start_named(app: Celery, name: str, **options: Any) -> Iterator[Any]:
    """`start_worker` with a node name, which it takes as an argument only since Celery 5.7."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("celery.contrib.testing.worker.anon_nodename", lambda: name)
        with start_worker(app, **options) as worker:
            yield worker


def heartbeats() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "morag-queue-heartbeat"]


def registered(client: redis.Redis, worker: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(client.hget(KEYS.workers, worker))
    return record


def is_stopped(client: redis.Redis, worker: str) -> bool:
    return bool(json.loads(client.hget(KEYS.beats, worker))["stopped"])


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_workers_of_celerys_test_support_claim_and_leave_nothing_behind(
    pool: str, app: Celery, client: redis.Redis
) -> None:
    conf, queues = dict(app.conf), set(app.amqp.queues)
    for n in range(2):
        with start_named(app, f"worker-{n}@localhost", pool=pool) as worker:
            assert app.send_task("add", (n, 1), queue="cpu_standard").get(timeout=20) == n + 1
            assert app.send_task("add", (n, 2), countdown=0.1).get(timeout=20) == n + 2, "timers run"
            assert type(worker.consumer.connection.transport).__module__ == "morag_queue.agent.transport"
            record = registered(client, f"worker-{n}")
            assert (record["claims"], record["queues"]) == (True, ["cpu_standard", "cpu_batch"])
            assert set(app.amqp.queues.consume_from) >= {"celery", "cpu_standard", f"cpu_standard.worker-{n}"}
            assert not [name for name in app.amqp.queues.consume_from if name.endswith(f".worker-{n - 1}")]
            assert heartbeats()

        assert is_stopped(client, f"worker-{n}")
        assert not heartbeats()
        assert set(app.amqp.queues) == queues
        assert {key: app.conf[key] for key in conf} == conf | {"include": app.conf.include}
    assert client.hlen(KEYS.unacked) == client.hlen(KEYS.held) == 0


def test_the_default_name_can_be_used_again(app: Celery, client: redis.Redis) -> None:
    runs = set()
    for n in range(2):
        with start_worker(app) as worker:
            name = worker.hostname.partition("@")[0]
            runs.add(registered(client, name)["incarnation"])
            assert app.send_task("add", (n, n)).get(timeout=20) == 2 * n
    assert len(runs) == 2


def test_a_drain_reaches_the_second_worker_of_a_process(app: Celery, client: redis.Redis) -> None:
    """It has another event loop and another timer than the first."""
    cordons, drained = Cordons(client, KEYS), Cordon(state=WorkerStatus.DRAINING)
    with start_named(app, "first@localhost"):
        pass
    with start_named(app, "second@localhost"):
        app.send_task("add", (1, 1), queue="cpu_standard", countdown=60)
        until(lambda: client.hlen(KEYS.held) == 1, 20, "not claimed")
        assert cordons.put("second", drained, [None])
        until(lambda: client.hlen(KEYS.held) == 0, 20, "not returned")
    assert client.llen("cpu_standard") == 1


def test_a_worker_object_of_the_app_runs_the_agent(app: Celery, client: redis.Redis) -> None:
    app.conf.update(worker_redirect_stdouts=False, worker_hijack_root_logger=False)
    worker = app.Worker(hostname="own@localhost", pool="solo", without_mingle=True, without_gossip=True, quiet=True)
    thread = threading.Thread(target=worker.start, daemon=True)
    thread.start()
    until(lambda: client.hexists(KEYS.beats, "own"), 20, "not registered")
    with allow_join_result():  # the worker has a thread of this process
        assert app.send_task("add", (1, 1)).get(timeout=20) == 2
    app.control.shutdown([worker.hostname])
    thread.join(20)
    assert not thread.is_alive()
    assert is_stopped(client, "own")


def test_two_workers_of_one_app_are_refused(app: Celery, valkey: str) -> None:
    other = Celery("other", broker=valkey, set_as_current=False)
    install(other, worker_type="cpu")
    with start_named(app, "one@localhost", perform_ping_check=False):
        with pytest.raises(SystemExit, match="one already runs in this process with the same app"):
            app.Worker(hostname="two@localhost")
        with pytest.raises(SystemExit, match="a worker named one already runs in this process: give each"):
            other.Worker(hostname="one@localhost")
    app.Worker(hostname="two@localhost")


def test_a_worker_that_cannot_start_is_refused_when_it_is_built(app: Celery) -> None:
    with pytest.raises(SystemExit, match="own is a cpu worker and does not serve gpu_priority: remove it from -Q"):
        app.Worker(hostname="own@localhost", queues=["gpu_priority"])
    app.amqp.queues.select([])
    install(app, worker_type="cpu", heartbeat_seconds=-1)
    with pytest.raises(SystemExit, match=r"morag_queue: agent\.heartbeat_seconds"):
        app.Worker(hostname="own@localhost")


def test_with_a_broker_in_memory_workers_run_without_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    app = Celery("in-memory", broker="memory://", set_as_current=False)
    install(app)

    worker = app.WorkController(hostname="own@localhost", pool="solo")

    assert "the broker is memory://: this worker runs without the agent" in caplog.text
    assert not [step.name for step in (*worker.steps, *worker.consumer.steps) if "morag_queue" in step.name]


def test_installing_twice_adds_one_agent_with_the_latest_arguments(app: Celery, client: redis.Redis) -> None:
    install(app, worker_type="gpu", heartbeat_seconds=0.1)
    with start_named(app, "twice@localhost"):
        assert registered(client, "twice")["capability"] == "gpu"
        assert len(heartbeats()) == 1
