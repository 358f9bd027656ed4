"""What `install` changes in an app and in its workers."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from morag_queue.agent import install, setup
from morag_queue.agent.agent import Agent
from morag_queue.agent.identity import Identity
from morag_queue.core.model import Capability
from morag_queue.errors import SettingsError
from morag_queue.settings import Settings


@pytest.fixture
def app(valkey: str) -> Iterator[Celery]:
    with Celery("installed", broker=valkey, set_as_current=False) as app:
        yield app


def identity() -> Identity:
    return Identity("w1", "mq", 60)


def agent(app: Celery, capability: Capability = Capability.CPU) -> Agent:
    return Agent(app, Settings(), identity(), capability, "0")


def test_a_producer_is_not_changed(app: Celery, client: Any) -> None:
    install(app)
    app.conf.broker_transport_options = {"priority_steps": [0, 5]}

    app.send_task("t", queue="mine", priority=7)

    assert client.llen("mine\x06\x165") == 1
    with app.connection_for_write() as connection:
        assert type(connection.transport).__module__ == "kombu.transport.redis"
    assert app.conf.broker_transport_options == {"priority_steps": [0, 5]}


def test_a_worker_keeps_the_transport_options_of_the_app_but_polls_every_level(app: Celery) -> None:
    given = {"visibility_timeout": 77, "global_keyprefix": "a:", "priority_steps": [0, 5], "client_name": "mine"}
    app.conf.broker_transport_options = given

    setup.configure(app, own := identity())

    options = app.conf.broker_transport_options
    assert (options["visibility_timeout"], options["global_keyprefix"]) == (77, "a:")
    assert options["priority_steps"] == list(range(10))
    assert options["client_name"] == own.client_name
    with app.connection_for_read() as connection:
        assert type(connection.transport).__module__ == "morag_queue.agent.transport"


@pytest.mark.parametrize("url", ["amqp://localhost//", "filesystem://"])
def test_a_broker_that_is_not_redis_is_refused(url: str) -> None:
    with (
        Celery("elsewhere", broker=url, set_as_current=False) as app,
        pytest.raises(SystemExit, match=rf"the broker is {url.partition(':')[0]}://.*leave install\(app\) out"),
    ):
        setup.configure(app, identity())


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_green_pool_is_refused(pool: str, app: Celery) -> None:
    green = type("TaskPool", (), {"is_green": True, "__module__": f"celery.concurrency.{pool}"})

    with pytest.raises(SystemExit, match=rf"the {pool} pool is not supported.*use -P prefork, solo, or threads"):
        setup.check(agent(app), SimpleNamespace(pool_cls=green))


def test_a_worker_subscribes_to_the_queues_that_its_capability_serves(app: Celery) -> None:
    assert setup.subscribe(agent(app, Capability.HYBRID), None) == (
        "gpu_priority", "gpu_fallback", "cpu_standard", "cpu_batch",
    )  # fmt: skip

    queues = app.amqp.queues
    assert {"gpu_priority", "gpu_priority.w1", "cpu_batch.w1"} <= queues.consume_from.keys()
    assert queues["gpu_priority"].exchange.name == "", "kombu can destroy a message of a named exchange"


def test_an_unknown_worker_type_is_refused_with_the_name_of_its_variable() -> None:
    from morag_queue.agent import hardware

    assert hardware.capability(None, {"WORKER_TYPE": " GPU "}) is Capability.GPU
    assert hardware.capability("cpu", {"MORAG_WORKER_TYPE": "gpu"}) is Capability.CPU
    with pytest.raises(SettingsError, match="MORAG_WORKER_TYPE='tpu': no such worker type; choose one of cpu, gpu"):
        hardware.capability(None, {"MORAG_WORKER_TYPE": "tpu", "WORKER_TYPE": "cpu"})


def test_a_process_is_the_same_only_if_it_runs_and_started_before() -> None:
    import subprocess
    import sys
    import time

    from morag_queue.agent.hardware import is_same_process

    now = time.time()
    assert is_same_process(os.getpid(), now)
    assert not is_same_process(os.getpid(), now - 10 * 86400), "it started later"
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_same_process(child.pid, time.time()), "a zombie has ended"
    child.wait()
    assert not is_same_process(child.pid, time.time())


def test_two_runs_never_have_the_same_client_name() -> None:
    first, second = identity(), identity()

    assert (first.host, first.pid) == (second.host, second.pid)
    assert first.client_name != second.client_name
    assert " " not in Identity("a b\n", "mq", 60).client_name
