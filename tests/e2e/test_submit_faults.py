"""A bulk submit that is cut off: what was queued is known and said, and a second run queues nothing twice."""

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
"""More than the command reads ahead: when it waits for the rest, some are queued for certain."""
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


def begin(fleet: Fleet, lines: list[str]) -> subprocess.Popen[str]:
    """A command that has queued some and waits for more."""
    command = start(fleet)
    assert command.stdin is not None
    command.stdin.writelines(lines[:FIRST])
    command.stdin.flush()
    until(lambda: sum(queued_ids(fleet.redis).values()) >= 250, 30, "nothing was queued")
    return command


def rest(fleet: Fleet, lines: list[str]) -> dict[str, object]:
    """A second run over all the rows."""
    command = start(fleet)
    out, err = command.communicate("".join(lines), timeout=60)
    assert command.returncode in (0, 3, 5), err
    answer: dict[str, object] = json.loads(out)
    return answer


def test_a_broker_that_dies_in_the_middle_is_said_and_the_second_run_queues_nothing_twice(fleet, lines):
    command = begin(fleet, lines)
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
    rest(fleet, lines)
    assert queued_ids(fleet.redis) == Counter(f"row-{number:04d}" for number in range(ROWS))


def test_ctrl_c_in_the_middle_says_what_was_queued_and_leaves_a_journal_entry(fleet, lines):
    command = begin(fleet, lines)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    answer = json.loads(out)
    assert command.returncode == 130, err
    assert {task["task_id"] for task in answer["tasks"]} == queued_ids(fleet.redis).keys()
    (entry,) = fleet.redis.xrange("mq:journal")
    noted = json.loads(entry[1][b"entry"] if b"entry" in entry[1] else entry[1]["entry"])
    assert (noted["verb"], noted["changes"]["submitted"]) == ("submit", answer["submitted"])
    rest(fleet, lines)
    assert queued_ids(fleet.redis) == Counter(f"row-{number:04d}" for number in range(ROWS))
