"""A Django project with Flower, django-celery-results and beat: what real applications put around Celery."""

import json
import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet

PROJECT = Path(__file__).parent / "django_project"


class Flower:
    """Flower's HTTP API on a free port of 127.0.0.1."""

    def __init__(self, fleet: AgentFleet) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.log = lambda: fleet.log("flower")
        args = ["-A", "shop", "flower", "--address=127.0.0.1", f"--port={port}"]
        fleet.sandbox.fork("flower", "celery", args, {**fleet.env, "FLOWER_UNAUTHENTICATED_API": "true"})

    def get(self, path: str, **query: Any) -> Any:
        with urlopen(f"{self.url}/{path}?{urlencode(query)}", timeout=20) as answer:
            return json.load(answer)

    def post(self, path: str, **fields: Any) -> Any:
        request = Request(f"{self.url}/{path}", data=urlencode(fields).encode(), method="POST")
        try:
            with urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except HTTPError as error:
            pytest.fail(f"{path}: {error.code} {error.read().decode()}\n{self.log()}")

    def workers(self) -> dict[str, Any]:
        """The workers that Flower lists after it has asked them; {} until Flower itself is up."""
        try:
            found: dict[str, Any] = self.get("workers", refresh=1)
        except URLError:
            return {}
        return {name: info for name, info in found.items() if "stats" in info and "active_queues" in info}


def results(fleet: AgentFleet) -> list[tuple[str, str]]:
    """The task results in the project's database: (status, result)."""
    with sqlite3.connect(fleet.env["SHOP_DATABASE"]) as database:
        rows = database.execute("SELECT status, result FROM django_celery_results_taskresult").fetchall()
    database.close()  # the context manager only ends the transaction
    return rows


def test_django_beat_and_flower_work_with_the_agent(make_agent_fleet: Callable[..., AgentFleet]) -> None:
    fleet = make_agent_fleet()
    fleet.env |= {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SHOP_DATABASE": str(fleet.dir / "shop.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), fleet.env["PYTHONPATH"]]),
    }
    flower = Flower(fleet)
    checkout = fleet.sandbox.spawn("checkout", [sys.executable, "-m", "shop.checkout"], fleet.env)
    assert checkout.wait(60) == 0, fleet.log("checkout")
    assert fleet.redis.llen("cpu_standard") == 1, "delay_on_commit sends what was committed, and only that"

    fleet.start_worker("w1", app="shop")
    until(lambda: results(fleet), 30, lambda: fleet.log("w1"))
    assert results(fleet) == [("SUCCESS", '"ordered 1"')]
    record = json.loads(fleet.redis.hget(fleet.keys.workers, "w1"))
    assert record["settings"] == record["settings"] | {
        "acks_late": True, "reject_on_worker_lost": False, "prefetch_multiplier": 2, "visibility_timeout": 7200,
    }  # fmt: skip

    check_beat(fleet)
    check_flower(fleet, flower, record["node"])


def check_beat(fleet: AgentFleet) -> None:
    args = ["-A", "shop", "beat", "--schedule", str(fleet.dir / "schedule"), "--pidfile=", "--max-interval", "1"]
    beat = fleet.sandbox.fork("beat", "celery", args, fleet.env)
    until(lambda: len(results(fleet)) >= 3, 30, lambda: fleet.log("beat") + fleet.log("w1"))
    beat.terminate()
    beat.wait(20)


def check_flower(fleet: AgentFleet, flower: Flower, node: str) -> None:
    until(lambda: node in flower.workers(), 30, lambda: flower.log())
    listed = flower.workers()[node]
    lanes = {"cpu_standard", "cpu_standard.w1", "cpu_batch", "cpu_batch.w1"}
    assert {queue["name"] for queue in listed["active_queues"]} == lanes
    assert listed["stats"]["pool"]["max-concurrency"] == 1
    assert flower.get("workers", status=1) == {node: True}

    for path, fields, message in (
        (f"worker/pool/grow/{node}", {"n": 1}, f"Growing '{node}' worker's pool by 1"),
        (f"worker/pool/shrink/{node}", {"n": 1}, f"Shrinking '{node}' worker's pool by 1"),
        (f"worker/queue/add-consumer/{node}", {"queue": "extra"}, "add consumer extra"),
        (f"worker/queue/cancel-consumer/{node}", {"queue": "extra"}, "no longer consuming from extra"),
        ("task/rate-limit/shop.order", {"workername": node, "ratelimit": "10/m"}, "new rate limit set successfully"),
        ("task/timeout/shop.order", {"workername": node, "hard": 30}, "time limits set successfully"),
    ):
        assert flower.post(path, **fields) == {"message": message}, path

    check_lengths(fleet, flower)
    flower.post(f"worker/shutdown/{node}")
    assert fleet.workers.pop("w1").wait(20) == 0


def check_lengths(fleet: AgentFleet, flower: Flower) -> None:
    """Flower counts the levels of kombu's default steps, 0 among them."""
    release = fleet.release_file()
    for _ in range(6):
        fleet.producer.send_task("shop.hold", (str(release),), queue="cpu_standard", priority=0)
    until(lambda: fleet.unacked_counts()[0] == 2, 20, lambda: str(fleet.where()))
    lengths = {one["name"]: one["messages"] for one in flower.get("queues/length")["active_queues"]}
    assert lengths == {"cpu_standard": 4, "cpu_standard.w1": 0, "cpu_batch": 0, "cpu_batch.w1": 0}
    release.touch()
