"""A pytest plugin for Celery's tests: the agent in their worker, a time limit for each, a record of the outcomes."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.contrib.testing import worker as testing_worker
from celery.utils.nodenames import anon_nodename
from redis import Redis

from morag_queue.agent import install
from morag_queue.broker.keys import Keys

SIDE = os.environ["CELERY_SUITE_SIDE"]
TEST_SECONDS = int(os.environ["CELERY_SUITE_TEST_SECONDS"])
"""Limit for one test, instead of the 300 s of Celery's own marker."""
REGISTRATION_SECONDS = 10.0

stock_start_worker = testing_worker.start_worker


@contextmanager
def start_worker(app: Any, **options: Any) -> Iterator[Any]:
    """Start the worker of the session; exit unless it has an agent on the agent side, and none on the other."""
    if SIDE == "agent":
        install(app, worker_type="cpu")
    with stock_start_worker(app, **options) as worker:
        give_up = time.monotonic() + REGISTRATION_SECONDS
        while SIDE == "agent" and not _has_agent() and time.monotonic() < give_up:
            time.sleep(0.1)
        if _has_agent() != (SIDE == "agent"):
            pytest.exit(f"the worker is not a {SIDE} worker", 3)
        yield worker


def _has_agent() -> bool:
    """Whether the worker has registered with a claim, that is, takes messages by the agent's script."""
    with Redis.from_url(os.environ["TEST_BROKER"]) as client:
        record = client.hget(Keys().workers, anon_nodename().partition("@")[0])
    return record is not None and json.loads(record)["claims"]


testing_worker.start_worker = start_worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(TEST_SECONDS), append=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append the outcome of each phase."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = " ".join(str(crash.message if crash else report.longrepr or "").split())[:200]
    row = {"test": report.nodeid, "when": report.when, "outcome": report.outcome, "message": message}
    with open(os.environ["CELERY_SUITE_OUTCOMES"], "a", encoding="utf-8") as outcomes:
        outcomes.write(json.dumps(row) + "\n")
