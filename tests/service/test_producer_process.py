"""`route_task` in a process that lives long: a fleet that changes, a broker that goes away, threads and forks."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery

from morag_queue import route_task
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.service import producer, router_cache
from tests.support.simulated_fleet import SimulatedFleet

URL_TASK, WEB_TASK = "morag.worker.process_url_task", "morag.worker.process_web_page_task"
PHOTO = ("https://example.org/photo.png", "image", {})
PAGE = ("https://example.org/page", {})


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let the producer read its settings anew, and refresh its router after each call."""
    monkeypatch.setattr(router_cache, "REFRESH_SECONDS", -1.0)
    producer._producers.clear()
    yield monkeypatch
    wait_for_refresh()
    producer._producers.clear()


def producer_app(url: str) -> Celery:
    app = Celery("producer", broker=url, set_as_current=False)
    app.conf.task_routes = (route_task,)
    app.conf.broker_transport_options = {"priority_steps": list(range(10))}
    return app


def wait_for_refresh() -> None:
    for thread in threading.enumerate():
        if thread.name == "morag-queue-routing":
            thread.join(30)
            assert not thread.is_alive()


def queue_of_photo(app: Celery) -> str | None:
    """Return where a photo is sent, once the process has read the fleet again."""
    for _ in range(2):
        route = route_task(URL_TASK, PHOTO, {}, {})
        wait_for_refresh()
    return None if route is None else str(route["queue"].name)


def lengths(sim_fleet: SimulatedFleet) -> Counter[str]:
    """Return the number of messages in each lane."""
    found: Counter[str] = Counter()
    for key in sim_fleet.client.scan_iter(_type="list"):
        found[key.decode().partition("\x06\x16")[0]] += sim_fleet.client.llen(key)
    return found


def test_calls_follow_a_broker_that_goes_away_and_returns(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An image prefers a GPU, and falls back to a CPU where it is known that only CPU workers are there."""
    warning = "routing without the state of the fleet: cannot reach the broker"
    with Sandbox() as sandbox:
        server = Server(sandbox)
        environment.setenv("REDIS_URL", server.url)
        sim_fleet = SimulatedFleet(server.url)
        with producer_app(server.url) as app:
            assert queue_of_photo(app) == "gpu_fallback"
            sim_fleet.join("cpu")
            assert queue_of_photo(app) == "cpu_standard"
            app.send_task(URL_TASK, PHOTO)
            assert lengths(sim_fleet) == {"cpu_standard": 1}
            assert warning not in caplog.text

            server.stop()
            assert queue_of_photo(app) == "gpu_fallback"
            assert warning in caplog.text

            server.start()
            sim_fleet.join("cpu")
            assert queue_of_photo(app) == "cpu_standard"
            app.send_task(URL_TASK, PHOTO)
            assert lengths(sim_fleet) == {"cpu_standard": 1}
        sim_fleet.client.close()


def test_threads_fill_each_worker_to_its_limit_and_lose_no_task(
    environment: pytest.MonkeyPatch, sim_fleet: SimulatedFleet
) -> None:
    threads, calls = 8, 25
    environment.setenv("REDIS_URL", sim_fleet.url)
    environment.setenv("MORAG_QUEUE_POLICY__BINDING", "early")
    workers = ("a", "b", "c")
    for worker in workers:
        sim_fleet.join(worker)
    ready = threading.Barrier(threads)
    interval = sys.getswitchinterval()
    environment.setattr(router_cache, "REFRESH_SECONDS", 60.0)  # all calls on one reading of the fleet

    def send(app: Celery) -> None:
        ready.wait(30)
        for _ in range(calls):
            app.send_task(WEB_TASK, PAGE)

    with producer_app(sim_fleet.url) as app, ThreadPoolExecutor(threads) as pool:
        sys.setswitchinterval(1e-5)
        try:
            for sent in [pool.submit(send, app) for _ in range(threads)]:
                sent.result(60)
        finally:
            sys.setswitchinterval(interval)
    in_lanes = {f"cpu_standard.{worker}": 4 for worker in workers}
    assert lengths(sim_fleet) == {**in_lanes, "cpu_standard": threads * calls - 12}


FORK = """
import os, sys, threading
from celery import Celery
from morag_queue import route_task
from morag_queue.service import router_cache
router_cache.REFRESH_SECONDS = -1.0
name, page = "morag.worker.process_web_page_task", ("https://example.org/page", {})

def send():
    app = Celery("producer", broker=os.environ["REDIS_URL"], set_as_current=False)
    app.conf.task_routes = (route_task,)
    for _ in range(20):
        app.send_task(name, page)

send()
while not any(thread.name == "morag-queue-routing" for thread in threading.enumerate()):
    route_task(name, page, {}, {})
child = os.fork()
send()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_that_was_forked_during_a_refresh_routes_its_own_calls(
    environment: pytest.MonkeyPatch, sim_fleet: SimulatedFleet
) -> None:
    environment.setenv("REDIS_URL", sim_fleet.url)
    sim_fleet.join("cpu")
    # Python 3.12 warns of every fork of a process with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert lengths(sim_fleet) == {"cpu_standard": 60}
