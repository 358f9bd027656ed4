"""An interrupted bulk submit reports what it queued, and a second run queues nothing twice."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

ROWS = 3000
FIRST = 2500
"""More than the command reads ahead, so that some are queued when it waits for the rest."""
COMMAND = [sys.executable, "-m", "morag_queue", "submit", "--from", "-", "--json"]


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(persist=True, config={"appendfsync": "always"})


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    source = tmp_path / "note.txt"
    source.write_text("one page")
    return [json.dumps({"source": str(source), "task_id": f"row-{number:04d}"}) + "\n" for number in range(ROWS)]


def queued_ids(client: redis.Redis) -> Counter[str]:
    keys = client.scan_iter("cpu_standard*", _type="list")
    return Counter(json.loads(raw)["headers"]["id"] for key in keys for raw in client.lrange(key, 0, -1))


def start(fleet: Fleet) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND, env={**fleet.env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_and_queue_some(fleet: Fleet, lines: list[str]) -> subprocess.Popen[str]:
    """Start a command that has queued some rows and waits for more."""
    command = start(fleet)
    assert command.stdin is not None
    command.stdin.writelines(lines[:FIRST])
    command.stdin.flush()
    # With the second batch on the broker, the command has certainly read the answer to the first.
    until(lambda: sum(queued_ids(fleet.redis).values()) >= 500, 30, "nothing was queued")
    return command


def submit_again(fleet: Fleet, lines: list[str]) -> dict[str, object]:
    """Submit all rows again."""
    command = start(fleet)
    out, err = command.communicate("".join(lines), timeout=60)
    assert command.returncode in (0, 3, 5), err
    answer: dict[str, object] = json.loads(out)
    return answer


def test_submit_reports_a_broker_crash_and_a_second_run_queues_nothing_twice(fleet, lines):
    command = start_and_queue_some(fleet, lines)
    fleet.server.kill()
    out, err = command.communicate("".join(lines[FIRST:]), timeout=60)
    answer = json.loads(out)
    assert command.returncode == 69, err
    assert answer["submitted"] >= 250
    assert answer["submitted"] % 250 == 0
    assert len(answer["uncertain"]) == 250
    assert f"{answer['submitted']} queued before the error; 250 may or may not be queued" in err
    fleet.server.restart()
    known = queued_ids(fleet.redis)
    assert {task["task_id"] for task in answer["tasks"]} <= known.keys()
    submit_again(fleet, lines)
    assert queued_ids(fleet.redis) == Counter(f"row-{number:04d}" for number in range(ROWS))


def test_submit_interrupted_by_ctrl_c_reports_what_was_queued_and_writes_a_journal_entry(fleet, lines):
    command = start_and_queue_some(fleet, lines)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    answer = json.loads(out)
    assert command.returncode == 130, err
    known, queued = {task["task_id"] for task in answer["tasks"]}, set(queued_ids(fleet.redis))
    assert known
    assert known <= queued <= known | set(answer["uncertain"])
    (entry,) = fleet.redis.xrange("mq:journal")
    journaled = json.loads(entry[1][b"entry"] if b"entry" in entry[1] else entry[1]["entry"])
    assert (journaled["verb"], journaled["changes"]["submitted"]) == ("submit", answer["submitted"])
    submit_again(fleet, lines)
    assert queued_ids(fleet.redis) == Counter(f"row-{number:04d}" for number in range(ROWS))
