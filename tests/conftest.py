"""Fixtures for all tests. Tests use only servers that are started here, on free ports of 127.0.0.1."""

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.support.agent_fleet import AgentFleet
from tests.support.fleet import Fleet
from tests.support.simulated_fleet import SimulatedFleet

settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is slow
settings.load_profile("suite")

STARTS_PROCESSES = {"make_fleet", "terminal"}
"""Fixtures of tests that mostly wait for workers or commands."""


def pytest_configure() -> None:
    _cache_bytecode()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _cache_bytecode() -> None:
    """Write `__pycache__` even where PYTHONDONTWRITEBYTECODE is set.

    Without it, each of the many processes of a run compiles the package, and pytest rewrites every test module again.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, so that all xdist processes have work until the end."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("slow"):
        return 0
    return 2 - bool(STARTS_PROCESSES.intersection(getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Server]:
    """One server per xdist process. Use `valkey`, which empties it, or `make_fleet` to kill or configure a server."""
    with Sandbox() as sandbox:
        server = Server(sandbox)
        yield server
        server.stop()


@pytest.fixture
def valkey(valkey_server: Server) -> str:
    """The URL of an empty database, without the connections that agents in the process of earlier tests left open."""
    with redis.Redis.from_url(valkey_server.url, decode_responses=True) as client:
        client.flushall()
        for connection in client.client_list():
            if (
                connection["name"].startswith("mq.") and connection["name"].count(".") >= 4
            ):  # as in Identity.client_name
                client.client_kill_filter(_id=connection["id"])
    return valkey_server.url


@pytest.fixture
def client(valkey: str) -> Iterator[redis.Redis]:
    """A redis-py client of `valkey` that returns bytes, like the broker's."""
    with redis.Redis.from_url(valkey) as connected:
        yield connected


@pytest.fixture
def make_fleet(request: pytest.FixtureRequest) -> Iterator[Callable[..., Fleet]]:
    """Return a function that starts a fleet with its own server and no worker yet: `make_fleet(persist=True)`."""
    fleets: list[Fleet] = []
    with ExitStack() as stack:

        def make(kind: type[Fleet] = Fleet, **options: Any) -> Fleet:
            fleets.append(stack.enter_context(kind(**options)))
            return fleets[-1]

        yield make
        if getattr(request.node, "failed", False):
            for fleet in fleets:
                for log in sorted(fleet.dir.glob("*.log")):
                    print(f"--- {log.name}\n{fleet.sandbox.last_lines(log.stem, 40)}")


@pytest.fixture
def make_agent_fleet(make_fleet: Callable[..., Any]) -> Callable[..., AgentFleet]:
    """Like `make_fleet`, for `AgentFleet`."""

    def make(**options: Any) -> AgentFleet:
        fleet: AgentFleet = make_fleet(kind=AgentFleet, **options)
        return fleet

    return make


@pytest.fixture
def cluster(make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet with defaults and no worker yet."""
    return make_fleet()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures find out whether the test failed."""
    report = yield
    if report.when == "call":
        item.failed = report.failed  # type: ignore[attr-defined]
    return report


@pytest.fixture
def sim_fleet(valkey: str) -> Iterator[SimulatedFleet]:
    """A fleet without worker processes on an empty database."""
    staged = SimulatedFleet(valkey)
    yield staged
    staged.client.close()


@pytest.fixture
def set_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that sets the time zone of this process until the end of the test."""

    def change(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield change
    monkeypatch.undo()
    time.tzset()
