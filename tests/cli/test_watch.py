"""`watch`: log, signals, exit status, metrics and systemd."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from morag_queue.local.waiting import until
from morag_queue.watch.events import Event
from morag_queue.watch.log import Log


class Process:
    """A `morag-queue watch` process; it logs JSON, because stdout is not a terminal."""

    def __init__(self, url: str, tmp_path: Any, *args: str, **env: str) -> None:
        self._out = open(tmp_path / f"{len(list(tmp_path.iterdir()))}.log", "w+b")  # noqa: SIM115  closed by `close`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "morag_queue", "watch", *args], stdout=self._out, stderr=subprocess.STDOUT,
            cwd=tmp_path, env={**_clean(os.environ), "REDIS_URL": url, **env},
        )  # fmt: skip

    @property
    def lines(self) -> list[dict[str, Any]]:
        self._out.seek(0)
        text = self._out.read().decode()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def until(self, event: str, seconds: float = 20) -> dict[str, Any]:
        until(lambda: self.of(event), seconds, lambda: f"no {event} in {self.lines}")
        return self.of(event)[0]

    def end(self, sig: signal.Signals) -> int:
        self.process.send_signal(sig)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()


def _clean(env: Any) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("MORAG_QUEUE_")}


@pytest.fixture
def watch(valkey, tmp_path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*args: str, **env: str) -> Process:
        started.append(Process(valkey, tmp_path, *args, **env))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize(("sig", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_watch_and_releases_the_lease(sim_fleet, watch, sig, status):
    process = watch()
    process.until("fleet_looked_at")
    assert sim_fleet.broker.leases.current() is not None
    assert process.end(sig) == status
    assert sim_fleet.broker.leases.current() is None
    assert [line["event"] for line in process.lines][-2:] == ["lease_given_up", "watch_stopped"]


def test_a_second_watch_takes_over_when_the_first_ends(sim_fleet, watch):
    first = watch()
    first.until("leading")
    second = watch()
    second.until("standing_by")
    assert first.end(signal.SIGTERM) == 0
    second.until("leading", seconds=5)


def test_once_runs_one_turn_and_exits(sim_fleet, mq):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("a", worker="worker-cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    answer = mq("watch", "--once", "--json", env={"REDIS_URL": sim_fleet.url})
    lines = [json.loads(line) for line in answer.out.splitlines()]
    (turn,) = [line for line in lines if line["event"] == "turn"]
    assert (turn["moved"], turn["rules"], turn["trigger"]) == (1, {"evacuation": 1}, "once")
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]
    assert sim_fleet.broker.leases.current() is None


def test_once_exits_with_7_and_names_the_leader(sim_fleet, mq):
    sim_fleet.broker.leases.take("x", "bob@there", "watch", 30)
    answer = mq("watch", "--once", status=7, env={"REDIS_URL": sim_fleet.url})
    assert "bob@there leads the fleet" in answer.err


def test_a_dry_run_of_watch_needs_no_lease_and_changes_nothing(sim_fleet, mq):
    sim_fleet.broker.leases.take("x", "bob@there", "watch", 30)
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("a", worker="worker-cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    answer = mq("watch", "--once", "--dry-run", "--json", env={"REDIS_URL": sim_fleet.url})
    (planned,) = [line for line in map(json.loads, answer.out.splitlines()) if line["event"] == "turn_planned"]
    assert "cpu_standard.worker-cpu-1" in planned["decisions"][0]
    assert sim_fleet.ids("cpu_standard.worker-cpu-1", 4) == ["a"]


def test_watch_logs_key_equals_value_on_a_terminal(sim_fleet, mq):
    answer = mq("watch", "--once", env={"REDIS_URL": sim_fleet.url}, terminal=True)
    assert re.search(
        r"^at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d level=info event=fleet_looked_at pending=0 ", answer.out, re.MULTILINE
    )


def test_the_log_is_in_the_users_zone_on_a_terminal_and_in_utc_as_json(set_zone):
    set_zone("Asia/Tokyo")
    text, lines = io.StringIO(), io.StringIO()
    Log(lines, json=True)(Event.METRICS, url="http://x")
    Log(text, json=False)(Event.METRICS, url="http://x")
    utc = json.loads(lines.getvalue())["at"]
    assert utc.endswith("Z")
    shown = re.match(r"at=(\S+) level=info event=metrics_served url=http://x\n", text.getvalue())[1]
    behind = datetime.fromisoformat(f"{shown}+09:00") - datetime.fromisoformat(utc)
    assert -1 < behind.total_seconds() < 60


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--interval", "soon"], 2, "--interval 'soon' is not a duration"),
        (["--interval", "10ms"], 2, "--interval '10ms' is too short: use at least 1s"),
        (["--monitor-interval", "0s"], 2, "--monitor-interval"),
        (["--metrics-port", "99999"], 2, "metrics-port"),
    ],
)
def test_invalid_options_of_watch_are_wrong_usage(sim_fleet, mq, args, status, message):
    assert message in mq("watch", *args, status=status, env={"REDIS_URL": sim_fleet.url}).err


def test_watch_fails_at_once_if_the_broker_is_unreachable_at_the_start(mq):
    answer = mq("watch", status=69, env={"REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"})
    assert "127.0.0.1:1" in answer.err
    assert "hunter2" not in answer.err


def test_metrics_are_served_on_localhost_and_a_used_port_is_reported(sim_fleet, watch, mq):
    process = watch("--metrics-port", "0")
    url = process.until("metrics_served")["url"]
    process.until("fleet_looked_at")
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    assert url.startswith("http://127.0.0.1:")
    assert "morag_queue_leading 1.0" in text
    assert 'morag_queue_events_total{event="leading"} 1.0' in text
    port = url.rpartition(":")[2].removesuffix("/metrics")
    answer = mq("watch", "--once", "--metrics-port", port, status=2, env={"REDIS_URL": sim_fleet.url})
    assert (
        f"--metrics-port: cannot serve on 127.0.0.1:{port}: Address already in use; choose another port" in answer.err
    )


def test_watch_notifies_systemd_of_readiness_liveness_and_stopping(sim_fleet, watch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        process = watch(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="10000000")
        first = receiver.recv(4096).decode().split("\n")
        assert first[:2] == ["READY=1", "WATCHDOG=1"]
        words = set(first)
        while not any("leading" in word for word in words):
            words |= set(receiver.recv(4096).decode().split("\n"))
        assert process.end(signal.SIGTERM) == 0
        while "STOPPING=1" not in words:
            words |= set(receiver.recv(4096).decode().split("\n"))
