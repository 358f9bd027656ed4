"""The `worker` command, and the work that its tasks do on a file."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from morag_queue.core.model import Capability
from morag_queue.core.policy import ContentPolicies
from morag_queue.core.routing.classify import classify
from morag_queue.local.formats import write_wav
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.waiting import until
from morag_queue.local.work import simulated_seconds, work_on
from morag_queue.probe import probe

COMMAND = [sys.executable, "-m", "morag_queue"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def test_worker_command_uses_its_flags_and_processes_a_file(
    valkey: str, client: redis.Redis, sandbox: Sandbox, tmp_path: Path
) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text('namespace = "mine"\n[agent]\nlocation = "attic"\n')
    common = ["--redis-url", valkey, "--config", str(config)]
    write_wav(tmp_path / "tone.wav", 2, 440)

    options = ["--type", "gpu", "--name", "worker-gpu-7", "--concurrency", "1"]
    worker = sandbox.spawn("worker", [*COMMAND, "worker", *common, *options, "--", "--without-gossip"])
    until(lambda: client.hget("mine:beats", "worker-gpu-7"), 30, lambda: sandbox.last_lines("worker"))
    submitted = subprocess.run(
        [*COMMAND, "submit", str(tmp_path / "tone.wav"), "--wait", "--json", *common],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    worker.send_signal(signal.SIGTERM)

    assert submitted.returncode == 0, submitted.stderr
    (task,) = json.loads(submitted.stdout)["tasks"]
    result = json.loads(client.get(f"celery-task-meta-{task['task_id']}") or b"{}")["result"]
    assert (result["content_type"], result["duration_s"], result["rms"]) == (
        "audio",
        2.0,
        pytest.approx(0.39, abs=0.01),
    )
    record = json.loads(client.hget("mine:workers", "worker-gpu-7") or b"{}")
    assert (record["capability"], record["location"], record["slots"]) == ("gpu", "attic", 1)
    assert worker.wait(30) == 0


def test_worker_command_exits_at_once_if_the_broker_is_unreachable() -> None:
    done = subprocess.run(
        [*COMMAND, "worker", "--redis-url", "redis://:secret@127.0.0.1:1/0"], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 69
    assert "cannot reach the broker" in done.stderr
    assert "secret" not in done.stderr


def test_a_text_is_hashed_and_its_words_are_counted_across_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morag_queue.local.work._CHUNK", 4)
    path = tmp_path / "text.txt"
    path.write_text("one  two three\nfour")

    result, found = work_on(str(path), None)

    assert (result["words"], result["bytes"], found.content_type) == (4, 19, "document")
    assert result["sha256"] == subprocess.run(
        ["sha256sum", str(path)], capture_output=True, text=True, check=True
    ).stdout.split()[0]  # fmt: skip


def test_a_url_is_not_fetched() -> None:
    assert work_on("https://example.org/a", "web")[0] == {
        "source": "https://example.org/a", "content_type": "web", "visited": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "capability", "seconds"),
    [("a.wav", Capability.GPU, 2.0), ("a.wav", Capability.CPU, 20.0), ("a.txt", Capability.CPU, 10.0)],
)
def test_simulated_time_depends_on_the_capability_of_the_worker(
    name: str, capability: Capability, seconds: float, tmp_path: Path
) -> None:
    path = tmp_path / name
    write_wav(path, 1, 440) if name.endswith("wav") else path.write_text("text")
    found = classify(probe(os.fspath(path)), {}, ContentPolicies())

    assert simulated_seconds({"simulate_seconds": 10}, found, capability) == pytest.approx(seconds)
    assert simulated_seconds(None, found, capability) == 0
