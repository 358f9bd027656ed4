"""`stats --live`: off a terminal one answer after another; on one a picture that keys change, gone without a trace."""

import json
import os
import shlex
import signal
import sys

import pytest

from tests.support.records import register
from tests.support.terminal import Terminal

COMMAND = [sys.executable, "-m", "morag_queue", "stats", "--live", "--interval", "100ms"]
LEFT = "\x1b[?1049l\x1b[?25h"
"""The alternate screen is left, the cursor is back."""


@pytest.fixture
def fleet(mq, valkey):
    return lambda *args, **more: mq("stats", *args, env={"REDIS_URL": valkey, **more.pop("env", {})}, **more)


@pytest.fixture
def terminal():
    """Starts a command in a terminal; by default the live view of `url`."""
    opened = []

    def start(url, argv=COMMAND, **more):
        opened.append(Terminal(argv, {"REDIS_URL": url}, **more))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_json_off_a_terminal_is_a_document_a_line(fleet):
    lines = fleet("--live", "--json", "--interval", "100ms", "--count", "2").out.splitlines()
    assert [set(json.loads(line)) >= {"taken_at", "queues", "workers", "leader"} for line in lines] == [True, True]


def test_plain_text_off_a_terminal_is_one_table_under_the_other(fleet):
    out = fleet("--live", "--interval", "100ms", "--count", "2").out
    assert out.count("QUEUE ") == 2
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--live", "--interval", "10ms"), "--interval 0.01s is too short: use at least 0.1s"),
        (("--live", "--interval", "often"), "--interval 'often' is not a duration"),
        (("--count", "2"), "--count is for --live"),
    ],
)
def test_wrong_usage(fleet, args, says):
    assert says in fleet(*args, status=2).err


def test_a_broker_that_is_not_there_at_the_start_ends_with_69(mq):
    mq("stats", "--live", status=69, env={"REDIS_URL": "redis://127.0.0.1:1/0"})


def test_a_picture_is_saved_of_one_answer_and_of_the_last_live_one(fleet, tmp_path):
    for args, title in (
        (("--svg", "one.svg"), "morag-queue&#160;stats"),
        (("--live", "--count", "1", "--svg", "one.svg"), "morag-queue&#160;stats&#160;--live"),
    ):
        assert "wrote one.svg" in fleet(*args).err
        text = (tmp_path / "one.svg").read_text()
        assert f">{title}</text>".replace("&#160;", " ") in text.replace("&#160;", " ")
        assert "gpu_priority" in text
        assert "url(http" not in text, "a picture fetches nothing"


def test_q_ends_it_and_the_terminal_is_as_it_was(terminal, valkey):
    live = terminal(valkey)
    assert "gpu_fallback" in live.until("q quit")
    assert not live.is_as_before, "keys are read one by one"
    live.type("q")
    assert live.wait() == 0
    assert LEFT in live.drawn
    assert live.is_as_before


def test_keys_sort_filter_pause_and_help(terminal, valkey, client):
    register(client, "worker-7")
    live = terminal(valkey)
    live.until("worker-7")
    live.type("s")
    live.until("s sort: status")
    live.type("/nob\x7f\x7fone\r")
    live.until("No worker matches 'none'.")
    live.type("\x1b")
    live.until("worker-7")
    live.type("p")
    live.until("PAUSED")
    live.type("p?")
    live.until("scroll the workers")
    live.type("xq")
    assert live.wait() == 0


def test_a_window_that_changes_its_size_is_filled_at_once(terminal, valkey):
    live = terminal(valkey, [*COMMAND[:-1], "1h"])
    assert "ALERTS" not in live.until("q quit")
    live.resize(200, 60)
    live.until("ALERTS")


def test_a_broker_that_goes_away_and_comes_back(terminal, make_fleet):
    fleet = make_fleet()
    live = terminal(fleet.url)
    live.until("UTC")
    fleet.server.kill()
    assert "gpu_priority" in live.until("cannot reach the broker"), "the last picture stays"
    fleet.server.start()
    live.drawn = ""
    live.until("UTC")
    live.type("q")
    assert live.wait() == 0


def test_a_broker_that_hangs_does_not_hold_up_the_keys(terminal, make_fleet):
    fleet = make_fleet()
    live = terminal(fleet.url)
    live.until("UTC")
    os.kill(fleet.redis.info("server")["process_id"], signal.SIGSTOP)
    live.until("UTC")
    live.type("s")
    live.until("s sort: status")
    live.type("q")
    assert live.wait() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(terminal, valkey, number, status):
    live = terminal(valkey)
    live.until("q quit")
    live.signal(number)
    assert live.wait() == status
    assert LEFT in live.drawn
    assert live.is_as_before


def test_ctrl_z_stops_it_with_the_terminal_as_it_was_and_fg_goes_on(terminal, valkey):
    shell = f"{shlex.join(COMMAND)}; echo stopped with $?; stty -a; read line; fg; echo ended with $?"
    live = terminal(valkey, ["/bin/bash", "-m", "-c", shell])
    live.until("q quit")
    live.type("\x1a")
    assert LEFT in live.until("stopped with 148")
    assert " icanon" in live.until("echoke")
    live.type("\n")
    live.until("q quit")
    live.type("q")
    live.until("ended with 0")


def test_a_bug_in_the_drawing_leaves_the_terminal_as_it_was(terminal, valkey):
    code = (
        "import sys, morag_queue.view.live as view, morag_queue.cli as cli\n"
        "view.render = None\nsys.exit(cli.main(['stats', '--live']))"
    )
    live = terminal(valkey, [sys.executable, "-c", code])
    assert live.wait() == 1
    assert "unexpected: TypeError" in live.drawn.split(LEFT)[1]
    assert live.is_as_before
