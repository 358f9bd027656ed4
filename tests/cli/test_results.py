"""Results of Celery: in the broker's database, in another one, and out of reach."""

import json

import pytest
import redis
from celery import Celery

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server

RESULT = {"status": "SUCCESS", "result": 42, "date_done": None}


@pytest.fixture
def backend():
    """Another server."""
    with Sandbox() as sandbox:
        server = Server(sandbox)
        yield server.url
        server.stop()


@pytest.fixture
def ended(sim_fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    sim_fleet.end("a")


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
@pytest.mark.parametrize("prefix", ["", "app", "app:"])
def test_task_show_reads_the_result_of_the_backend_of_the_settings(fleet, ended, backend, prefix):
    with Celery("app", broker="memory://", backend=backend, set_as_current=False) as app:
        if prefix:
            app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
        app.backend.store_result("a", 42, "SUCCESS")
        app.backend.client.close()
    assert fleet("task", "show", "a", "--json").json["result"] is None
    env = {"MORAG_QUEUE_RESULTS__URL": backend, "MORAG_QUEUE_RESULTS__GLOBAL_KEYPREFIX": prefix}
    found = fleet("task", "show", "a", "--json", env=env).json
    assert (found["result"]["status"], found["result"]["result"], found["result_problem"]) == ("SUCCESS", 42, "")
    assert "SUCCESS: 42" in fleet("task", "show", "a", env=env).out


def test_a_failover_believes_the_result_of_that_backend(fleet, sim_fleet, backend):
    sim_fleet.join("cpu-1", client_name="mq.cpu-1")
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    with redis.Redis.from_url(backend) as client:
        client.set("celery-task-meta-a", json.dumps(RESULT | {"date_done": "2100-01-01T00:00:00"}))
    env = {"MORAG_QUEUE_RESULTS__URL": backend}
    assert fleet("failover", "cpu-1", "--yes", "--json", env=env).json["requeued_tasks"] == 0
    assert fleet("task", "show", "a", "--json", env=env).json["task"]["state"] == "completed"


def test_task_show_answers_without_a_result_that_cannot_be_read(fleet, ended, client):
    env = {"MORAG_QUEUE_RESULTS__URL": "redis://:secret@127.0.0.1:1/0"}
    found = fleet("task", "show", "a", env=env)
    assert "unknown: cannot reach the broker redis://:***@127.0.0.1:1/0" in found.out
    client.lpush("celery-task-meta-a", "x")
    assert fleet("task", "show", "a", "--json").json["result"] is None
    client.delete("celery-task-meta-a")
    client.set("celery-task-meta-a", b"\x80\x05]\x94.")  # pickle, which is never loaded
    assert fleet("task", "show", "a", "--json").json["result"] is None


def test_the_url_of_the_backend_is_checked_and_masked(fleet):
    env = {"MORAG_QUEUE_RESULTS__URL": "redis://:secret@127.0.0.1:1/0"}
    assert "secret" not in fleet("config", "show", env=env).out
    error = fleet("config", "show", env={"MORAG_QUEUE_RESULTS__URL": "db+sqlite:///x"}, status=2).err
    assert "results.url" in error
    assert "it should start with one of redis://" in error
